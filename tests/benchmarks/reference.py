"""The same weights inside transformers' ``LlamaForCausalLM``: the reference for agreement and for speed."""

from __future__ import annotations

from transformers import LlamaConfig, LlamaForCausalLM

from sharedllm.model import Transformer

NAMES = {
    "embed.": "model.embed_tokens.",
    "head.": "lm_head.",
    "blocks.": "model.layers.",
    ".attention_norm.": ".input_layernorm.",
    ".feedforward_norm.": ".post_attention_layernorm.",
    ".attention.": ".self_attn.",
    ".feedforward.": ".mlp.",
    **{f".{ours}.weight": f".{ours}_proj.weight" for ours in ("q", "k", "v", "o", "gate", "up", "down")},
}


def as_transformers(model: Transformer) -> LlamaForCausalLM:
    """Build the reference around a dense model's own tensors, without a copy."""
    ours = model.config
    config = LlamaConfig(
        vocab_size=ours.vocab_size,
        hidden_size=ours.width,
        intermediate_size=ours.hidden,
        num_hidden_layers=ours.layers,
        num_attention_heads=ours.heads,
        num_key_value_heads=ours.kv_heads,
        head_dim=ours.head_width,
        rms_norm_eps=ours.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": ours.rope_base},
        max_position_embeddings=ours.context,
        tie_word_embeddings=ours.tied_head,
        bos_token_id=None,
        eos_token_id=None,
    )
    weights = {_their_name(name): tensor for name, tensor in model.state_dict().items()}
    if ours.tied_head:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    reference = LlamaForCausalLM(config)
    reference.load_state_dict(weights, strict=True, assign=True)
    reference.tie_weights()
    return reference.eval()


def _their_name(name: str) -> str:
    if name == "norm.weight":
        return "model.norm.weight"
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name
