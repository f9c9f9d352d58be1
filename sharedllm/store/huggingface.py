"""Llama-style folders in Hugging Face's layout, on disk or from a repository for people who have the network.

Reads ``config.json``, one or more ``.safetensors`` and ``tokenizer.json``. Pickled weights (``.bin``) are
refused: unpickling runs code.

*Covered*: shards, tied and untied heads, fp32, fp16 and bf16 weights. *Not covered*: scaled rotary
positions, biases, sliding windows and other architectures: each is refused by a sentence.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sharedllm.errors import BadModelFile, DownloadFailed
from sharedllm.model.config import Config
from sharedllm.model.tokenizer import Tokenizer
from sharedllm.store import safetensors
from sharedllm.store.manifest import Source

__all__ = ["fetch_repository", "files_of", "is_repository", "read"]

_NAMES = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "attention.q",
    "self_attn.k_proj": "attention.k",
    "self_attn.v_proj": "attention.v",
    "self_attn.o_proj": "attention.o",
    "post_attention_layernorm": "feedforward_norm",
    "mlp.gate_proj": "feedforward.gate",
    "mlp.up_proj": "feedforward.up",
    "mlp.down_proj": "feedforward.down",
}
_ENDS = {
    "model.embed_tokens.weight": "embed.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "head.weight",
}
_READABLE = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_WANTED = ["*.json", "*.safetensors", "*.jinja"]


def is_repository(name: str) -> bool:
    """Say whether ``name`` has the form ``owner/name`` of a repository."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def fetch_repository(name: str) -> Path:
    """Download the model files of a repository into the hub client's own cache. Raises ``DownloadFailed``."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise DownloadFailed(
            f"{name} looks like a Hugging Face repository, and fetching one needs "
            "`pip install huggingface_hub`; or give the path of a folder or GGUF file."
        ) from error
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_WANTED))
    except Exception as error:  # the client raises its own, requests' and httpx's errors, all meaning this
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DownloadFailed(
            f"{name} is neither a file here nor a repository that could be fetched ({reason[:200]}). "
            "Check the name and the network, or give the path of a folder or GGUF file."
        ) from error


def files_of(folder: Path) -> list[Path]:
    """List the files that decide what is loaded from ``folder``, sorted. Raises ``BadModelFile``."""
    if not (folder / "config.json").is_file():
        raise BadModelFile(f"{folder} is no model folder: it has no config.json. Give a folder that has one.")
    others = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")
    found = [folder / "config.json", *(folder / name for name in others), *_shards(folder)]
    return sorted(path for path in found if path.is_file())


def read(folder: Path) -> Source:
    """Read a model folder as a ``Source``; weights are read when asked for. Raises ``BadModelFile``."""
    facts = _json(folder / "config.json")
    tensors: dict[str, tuple[tuple[int, ...], Callable[[], torch.Tensor]]] = {}
    tied = bool(facts.get("tie_word_embeddings", False))
    for shard in _shards(folder):
        mapped = functools.cache(functools.partial(safetensors.read_tensors, shard))
        for name, entry in safetensors.read_header(shard).items():
            ours = _our_name(name, folder)
            if ours is None or (ours == "head.weight" and tied):
                continue
            if entry.dtype not in _READABLE:
                raise BadModelFile(
                    f"Tensor {name} of {shard} is {entry.dtype}; expected fp32, fp16 or bf16 weights. "
                    "Choose a model that is not quantised, or a GGUF."
                )
            tensors[ours] = entry.shape, functools.partial(_read, mapped, name)
    return Source(
        _config(facts, folder, tied),
        _tokenizer(folder, facts),
        tensors,
        licence="not stated in the folder",
        provenance={"folder": folder.name, "name": str(facts.get("_name_or_path") or folder.name)[:200]},
    )


def _read(mapped: Callable[[], dict[str, torch.Tensor]], name: str) -> torch.Tensor:
    return mapped()[name].float()


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        names = {"model.safetensors"}
    else:
        names = set(_json(index).get("weight_map", {}).values())
        if any(not isinstance(name, str) or Path(name).name != name for name in names):
            raise BadModelFile(f"{index} names a shard outside its own folder; don't trust this model.")
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing or not names:
        pickled = " It has pickled weights, but unpickling runs code." if list(folder.glob("*.bin")) else ""
        raise BadModelFile(
            f"{folder} lacks {', '.join(missing) or 'its shards'}.{pickled} Download the safetensors files."
        )
    return [folder / name for name in sorted(names)]


def _json(path: Path) -> dict[str, Any]:
    try:
        whole = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadModelFile(f"{path} can't be read ({error}); download it again.") from error
    if not isinstance(whole, dict):
        raise BadModelFile(f"{path} does not hold a JSON object; download it again.")
    return whole


def _our_name(name: str, folder: Path) -> str | None:
    block = re.fullmatch(r"model\.layers\.([0-9]+)\.([\w.]+)\.weight", name)
    if name in _ENDS:
        return _ENDS[name]
    if block and block[2] in _NAMES:
        return f"blocks.{block[1]}.{_NAMES[block[2]]}.weight"
    if name.endswith("rotary_emb.inv_freq"):  # old checkpoints keep the table that follows from rope_theta
        return None
    raise BadModelFile(
        f"{folder} holds a tensor {name}, for which SharedLLM's decoder has no place; choose another model."
    )


def _config(facts: dict[str, Any], folder: Path, tied: bool) -> Config:
    if facts.get("model_type") not in ("llama", "mistral"):
        raise BadModelFile(
            f"{folder} holds a model of type {facts.get('model_type')!r}; "
            "SharedLLM runs 'llama' and 'mistral' models."
        )
    try:
        heads, width = facts["num_attention_heads"], facts["hidden_size"]
        rope = facts.get("rope_parameters") or facts.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        for what, held in {
            f"rotary positions scaled as {kind!r}": kind != "default",
            "biases": facts.get("attention_bias") or facts.get("mlp_bias"),
            f"the activation {facts.get('hidden_act')!r}": facts.get("hidden_act", "silu") != "silu",
            "a sliding window": facts["model_type"] == "mistral" and facts.get("sliding_window") is not None,
        }.items():
            if held:
                raise BadModelFile(
                    f"{folder} uses {what}, which SharedLLM's decoder does not; choose another model."
                )
        return Config(
            vocab_size=facts["vocab_size"],
            width=width,
            layers=facts["num_hidden_layers"],
            heads=heads,
            kv_heads=facts.get("num_key_value_heads") or heads,
            head_width=facts.get("head_dim") or width // heads,
            hidden=facts["intermediate_size"],
            experts=0,
            rope_base=float(rope.get("rope_theta") or facts.get("rope_theta") or 10_000.0),
            norm_eps=float(facts.get("rms_norm_eps", 1e-6)),
            context=facts.get("max_position_embeddings", 2048),
            tied_head=tied,
        )
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise BadModelFile(
            f"{folder / 'config.json'} lacks, or mistypes, {error}; download it again."
        ) from error


def _tokenizer(folder: Path, facts: dict[str, Any]) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BadModelFile(
            f"{folder} has no tokenizer.json; save the tokenizer in its fast form beside the model."
        )
    json_str = json.dumps(_json(path), ensure_ascii=False, separators=(",", ":"))
    settings = _optional(folder / "tokenizer_config.json")
    ends = _optional(folder / "generation_config.json").get("eos_token_id", facts.get("eos_token_id"))
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    bare = Tokenizer(json_str)
    bos = _id(bare, settings.get("bos_token"), facts.get("bos_token_id"))
    eos = _id(bare, settings.get("eos_token"), ends[0] if ends else None)
    # the post-processor of tokenizer.json decides whether a prompt begins with bos; most settings don't say
    add_bos = bos is not None and bare.begins_with() == bos
    return Tokenizer(json_str, _template(folder, settings), bos=bos, eos=eos, add_bos=add_bos, ends=ends)


def _optional(path: Path) -> dict[str, Any]:
    return _json(path) if path.is_file() else {}


def _id(bare: Tokenizer, token: Any, otherwise: Any) -> int | None:
    content = token.get("content") if isinstance(token, dict) else token
    found = bare.id_of(content) if isinstance(content, str) else None
    return found if found is not None else otherwise if isinstance(otherwise, int) else None


def _template(folder: Path, settings: dict[str, Any]) -> str | None:
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        return alone.read_text(encoding="utf-8")
    given = settings.get("chat_template")
    if isinstance(given, list):
        named = {entry.get("name"): entry.get("template") for entry in given if isinstance(entry, dict)}
        given = named.get("default")
    return given if isinstance(given, str) else None
