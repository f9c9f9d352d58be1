"""GGUF files of Llama-style models: checked field by field against the file's size, then dequantised to fp32.

The header is parsed here and not by ``gguf.GGUFReader``, which trusts every count it reads (a damaged array
length sends it through 2⁶⁰ iterations); block formats and their dequantisation are the ``gguf`` package's.
Format: ggml-org/ggml, ``docs/gguf.md``.

*Covered*: truncation anywhere, counts and offsets that lie, unknown tensor types, shapes that don't fit
their blocks, tensors missing, left over or of a wrong shape. *Not covered*: big-endian files, split files,
scaled rotary positions, mixtures of experts: each is refused by a sentence.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from sharedllm.errors import BadModelFile
from sharedllm.model.config import Config
from sharedllm.model.tokenizer import Tokenizer
from sharedllm.model.vocabulary import byte_level_json, sentencepiece_json
from sharedllm.store.manifest import Source

__all__ = ["Contents", "Stored", "read", "read_contents"]

# GGUF's value types by number: how struct reads them; 8 is a string, 9 an array
_SCALARS = dict(enumerate(f"<{c}" for c in "BbHhIif?")) | {10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_DEEPEST = 4
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


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in the file: its shape (outermost first), its block format, where its bytes are."""

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    n_bytes: int


@dataclasses.dataclass(frozen=True)
class Contents:
    """The metadata of a file and where its tensors are."""

    fields: dict[str, Any]
    tensors: dict[str, Stored]


class _Bytes:
    """The file's bytes with a position; every step is checked against the end before it is taken."""

    def __init__(self, path: Path) -> None:
        self.data = np.memmap(path, dtype=np.uint8, mode="r").data
        self.at = 0

    def take(self, n_bytes: int) -> bytes:
        if n_bytes > len(self.data) - self.at:
            raise ValueError(
                f"it ends at byte {len(self.data)}, but {n_bytes} more were announced at {self.at}"
            )
        self.at += n_bytes
        return self.data[self.at - n_bytes : self.at].tobytes()

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        return self.take(self.number("<Q")).decode()

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY or depth == _DEEPEST:
            raise ValueError(f"it holds a value of the unknown type {kind}")
        inner, count = self.number("<I"), self.number("<Q")
        if inner in _SCALARS:
            form = _SCALARS[inner]
            return list(struct.unpack(f"<{count}{form[1]}", self.take(count * struct.calcsize(form))))
        if count > len(self.data) - self.at:
            raise ValueError(f"it announces {count} values where {len(self.data) - self.at} bytes are left")
        return [self.value(inner, depth + 1) for _ in range(count)]


def read_contents(path: Path) -> Contents:
    """Read the header of a GGUF file. Raises ``BadModelFile``; allocates no more than the file has bytes."""
    try:
        if path.stat().st_size < 24:
            raise ValueError("it is shorter than the smallest header")
        source = _Bytes(path)
        if source.take(4) != b"GGUF":
            raise ValueError("it does not begin with the letters GGUF")
        version = source.number("<I")
        if version not in (2, 3):
            raise ValueError(f"its version is {version}; 2 and 3 are known, in little-endian order")
        n_tensors, n_fields = source.number("<Q"), source.number("<Q")
        fields: dict[str, Any] = {}
        for _ in range(n_fields):
            name = source.text()
            fields[name] = source.value(source.number("<I"))
        places = [_place(source) for _ in range(n_tensors)]
        alignment = fields.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"its alignment is {alignment!r}")
        start = math.ceil(source.at / alignment) * alignment
        tensors = {place[0]: _stored(*place, start, len(source.data)) for place in places}
        if len(tensors) != n_tensors:
            raise ValueError("it lists a tensor twice")
    except (OSError, ValueError, struct.error, OverflowError) as error:
        raise BadModelFile(f"{path} is not a whole GGUF file: {error}. Download it again.") from error
    return Contents(fields, tensors)


def _place(source: _Bytes) -> tuple[str, tuple[int, ...], int, int]:
    name, n_dims = source.text(), source.number("<I")
    if n_dims > 4:
        raise ValueError(f"tensor {name} has {n_dims} dimensions")
    dims = [source.number("<Q") for _ in range(n_dims)]
    return name, tuple(reversed(dims)), source.number("<I"), source.number("<Q")


def _stored(name: str, shape: tuple[int, ...], kind: int, offset: int, start: int, end: int) -> Stored:
    try:
        known = GGMLQuantizationType(kind)
    except ValueError:
        raise ValueError(
            f"tensor {name} has the unknown type {kind}; a newer `gguf` package may know it"
        ) from None
    block, block_bytes = GGML_QUANT_SIZES[known]
    if not shape or shape[-1] % block:
        raise ValueError(
            f"tensor {name} has rows that are no multiple of {block} values, as {known.name} needs"
        )
    n_bytes = math.prod(shape) // block * block_bytes
    if start + offset + n_bytes > end:
        raise ValueError(f"tensor {name} ends at byte {start + offset + n_bytes}, but the file ends at {end}")
    return Stored(shape, known, start + offset, n_bytes)


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
        licence=str(fields.get("general.license", "not stated in the file")),
        provenance={"file": path.name, "name": str(fields.get("general.name", path.stem))[:200]},
    )


def _config(contents: Contents, path: Path) -> Config:
    fields = contents.fields
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise BadModelFile(
            f"{path} holds a model of architecture {architecture!r}; SharedLLM runs 'llama' models."
        )
    if fields.get("split.count", 0) > 1:
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
        scaled = (
            fields.get("llama.rope.scaling.type", "none") != "none" or "rope_freqs.weight" in contents.tensors
        )
        for what, held in {
            "scaled rotary positions": scaled or fields.get("llama.rope.scale_linear", 1.0) != 1.0,
            "partly rotated heads": fields.get("llama.rope.dimension_count", head_width) != head_width,
            "values of another width than keys": fields.get("llama.attention.value_length", head_width)
            != head_width,
            "a mixture of experts": fields.get("llama.expert_count", 0) > 0,
        }.items():
            if held:
                raise BadModelFile(
                    f"{path} uses {what}, which SharedLLM's decoder does not; choose another model."
                )
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
