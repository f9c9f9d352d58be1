"""GGUF files of Llama-style models, dequantised to fp32; block formats are the ``gguf`` package's.

*Covered*: every block format that ``gguf.quants`` dequantises; byte-level and SentencePiece BPE tokenizers.
*Not covered*: other architectures, split files, scaled rotary positions, mixtures of experts, biases: each
is refused by a sentence.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.quants import dequantize

from sharedllm.errors import BadModelFile
from sharedllm.model.config import Config
from sharedllm.model.tokenizer import Tokenizer
from sharedllm.model.vocabulary import byte_level_json, sentencepiece_json
from sharedllm.store.gguf_header import Contents, Stored, read_contents
from sharedllm.store.manifest import Source

__all__ = ["read"]

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_NAMES = {
    "attn_norm": "attention_norm",
    "attn_q": "attention.q",
    "attn_k": "attention.k",
    "attn_v": "attention.v",
    "attn_output": "attention.o",
    "ffn_norm": "feedforward_norm",
    "ffn_gate": "feedforward.gate",
    "ffn_up": "feedforward.up",
    "ffn_down": "feedforward.down",
}
_ENDS = {
    "token_embd.weight": "embed.weight",
    "output_norm.weight": "norm.weight",
    "output.weight": "head.weight",
}


def read(path: Path) -> Source:
    """Read a Llama-style GGUF as a ``Source``; weights are read when asked for. Raises ``BadModelFile``."""
    contents = read_contents(path)
    config = _config(contents, path)
    data = np.memmap(path, dtype=np.uint8, mode="r")
    tensors: dict[str, tuple[tuple[int, ...], Callable[[], torch.Tensor]]] = {}
    for name, stored in contents.tensors.items():
        ours = _our_name(name, path)
        heads = {"attention.q.weight": config.heads, "attention.k.weight": config.kv_heads}
        rotary = next((n for end, n in heads.items() if ours.endswith(end)), 0)
        tensors[ours] = stored.shape, functools.partial(_read, data, name, stored, rotary)
    fields = contents.fields
    return Source(
        config,
        _tokenizer(fields, path),
        tensors,
        licence=str(fields.get("general.license", "not stated in the file"))[:200],
        provenance={"file": path.name, "name": str(fields.get("general.name", path.stem))[:200]},
    )


def _config(contents: Contents, path: Path) -> Config:
    fields = contents.fields
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise BadModelFile(
            f"{path} holds a model of architecture {architecture!r}; SharedLLM runs 'llama' models."
        )
    if fields.get("split.count", 0) not in (0, 1):
        raise BadModelFile(
            f"{path} is one part of a split model; join the parts with `llama-gguf-split --merge`."
        )
    embed = contents.tensors.get("token_embd.weight")
    if embed is None or len(embed.shape) != 2:
        raise BadModelFile(
            f"{path} has no embedding (token_embd.weight), so it is no whole model; download it again."
        )
    try:
        heads, width = fields["llama.attention.head_count"], fields["llama.embedding_length"]
        head_width = fields.get("llama.attention.key_length", width // heads)
        _refuse_other_decoders(contents, head_width, path)
        return Config(
            vocab_size=embed.shape[0],
            width=width,
            layers=fields["llama.block_count"],
            heads=heads,
            kv_heads=fields.get("llama.attention.head_count_kv", heads),
            head_width=head_width,
            hidden=fields["llama.feed_forward_length"],
            experts=0,
            rope_base=float(fields.get("llama.rope.freq_base", 10_000.0)),
            norm_eps=_plain(fields["llama.attention.layer_norm_rms_epsilon"]),
            context=fields["llama.context_length"],
            tied_head="output.weight" not in contents.tensors,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BadModelFile(
            f"{path} lacks, or mistypes, metadata of a Llama-style model ({error})."
        ) from error


def _refuse_other_decoders(contents: Contents, head_width: int, path: Path) -> None:
    get = contents.fields.get
    scaled = get("llama.rope.scaling.type", "none") != "none" or get("llama.rope.scale_linear", 1.0) != 1.0
    for what, held in {
        "scaled rotary positions": scaled or "rope_freqs.weight" in contents.tensors,
        "partly rotated heads": get("llama.rope.dimension_count", head_width) != head_width,
        "values of another width than keys": get("llama.attention.value_length", head_width) != head_width,
        "a mixture of experts": get("llama.expert_count", 0) > 0,
    }.items():
        if held:
            raise BadModelFile(
                f"{path} uses {what}, which SharedLLM's decoder does not; choose another model."
            )


def _plain(single: float) -> float:
    """Undo the detour through single precision: 9.99999974e-06 was written as 1e-05."""
    return float(f"{single:.7g}")


def _our_name(name: str, path: Path) -> str:
    block = re.fullmatch(r"blk\.([0-9]+)\.(\w+)\.weight", name)
    if name in _ENDS:
        return _ENDS[name]
    if block and block[2] in _NAMES:
        return f"blocks.{block[1]}.{_NAMES[block[2]]}.weight"
    raise BadModelFile(
        f"{path} holds a tensor {name}, for which SharedLLM's decoder has no place; choose another model."
    )


def _read(data: np.memmap[Any, Any], name: str, stored: Stored, rotary_heads: int) -> torch.Tensor:
    """Dequantise one tensor; undo llama.cpp's order of rotary pairs (i, i + 1) into halves (i, i + C/2)."""
    raw = data[stored.start : stored.start + stored.n_bytes]
    try:
        values = dequantize(raw.reshape(*stored.shape[:-1], -1).view(np.uint8), stored.kind)
    except NotImplementedError as error:
        raise BadModelFile(
            f"Tensor {name} has the type {stored.kind.name}, which the `gguf` package can't dequantise; "
            "choose another quantisation of the model (Q4_1, Q8_0, F16 and many more work)."
        ) from error
    tensor = torch.from_numpy(np.array(values, dtype=np.float32)).view(stored.shape)
    if rotary_heads:
        rows, inputs = stored.shape
        pairs = tensor.view(rotary_heads, rows // rotary_heads // 2, 2, inputs)
        tensor = pairs.transpose(1, 2).reshape(rows, inputs)
    return tensor


def _tokenizer(fields: dict[str, Any], path: Path) -> Tokenizer:
    get = {key.removeprefix("tokenizer.ggml."): value for key, value in fields.items()}.get
    tokens, kinds = get("tokens"), get("token_type")
    if not isinstance(tokens, list) or not tokens:
        raise BadModelFile(f"{path} holds no tokenizer; download a GGUF that has one.")
    kinds = kinds if isinstance(kinds, list) and len(kinds) == len(tokens) else [_NORMAL] * len(tokens)
    special = [n for n, kind in enumerate(kinds) if kind in (_CONTROL, _UNKNOWN)]
    user = [n for n, kind in enumerate(kinds) if kind == _USER]
    model, merges, scores = get("model"), get("merges"), get("scores")
    if model == "gpt2" and isinstance(merges, list):
        json_str = byte_level_json(tokens, merges, special, user, str(get("pre", "gpt-2")))
    elif model == "llama" and isinstance(scores, list) and len(scores) == len(tokens):
        json_str = sentencepiece_json(tokens, scores, special, user)
    else:
        raise BadModelFile(f"{path} has a tokenizer of the kind {model!r}; 'gpt2' and 'llama' are known.")
    ends = [n for n in (get("eot_token_id"), get("eom_token_id")) if n is not None]
    return Tokenizer(
        json_str,
        fields.get("tokenizer.chat_template"),
        bos=get("bos_token_id"),
        eos=get("eos_token_id"),
        add_bos=bool(get("add_bos_token", model == "llama")),
        ends=ends,
    )
