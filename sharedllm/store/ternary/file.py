"""The file ``sharedllm-ternary-1``: a whole model, its tokenizer included, in a safetensors container.

Hidden matrices are trits with scales, embedding and head int8 or int4 with scales, gains fp32, and what else
there is (a router) fp16. The metadata say what each weight is, and the SHA-256 of every tensor and of the
header itself; so whoever opens a file by memory map and restores three layers has checked just those.

*Covered*: a bit flipped anywhere (the tensor, or the header, is named), truncation, shapes and lengths that
contradict each other, all before memory is taken; weights are at most twenty times the bytes of the file.
*Not covered*: a file that is changed after a tensor was checked and before it is restored.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sharedllm.errors import BadModelFile
from sharedllm.model.config import Config
from sharedllm.model.tokenizer import Tokenizer
from sharedllm.store import safetensors
from sharedllm.store.blobs import Sink
from sharedllm.store.cache import canonical_json
from sharedllm.store.ternary.tensors import SteppedTensor, TernaryTensor

__all__ = ["DTYPE", "SCHEMA", "Opened", "Table", "Weight", "is_ternary", "read", "write"]

SCHEMA = "sharedllm-ternary-1"
DTYPE = "ternary"  # what a manifest says of such a file
Table = Literal["fp32", "fp16", "int8", "int4"]
Weight = Tensor | TernaryTensor | SteppedTensor

_TOKENIZER = "tokenizer"
_FIRST = b'{"__metadata__":{"header_sha256":"'
_HOLE = b"0" * 64
_PARTS = {"ternary": ("trits", "scales"), "int8": ("steps", "scales"), "int4": ("steps", "scales")}
_INT4_GROUP = 32
_TABLES = ("embed.weight", "head.weight")


def write(
    sink: Sink,
    config: Config,
    tokenizer: Tokenizer,
    weights: Mapping[str, Weight],
    *,
    table: Table = "int8",
    licence: str,
    provenance: Mapping[str, Any],
) -> None:
    """Write a model's ``weights`` by name; ``table`` says as what a plain embedding and head are kept.

    A plain tensor of one dimension is a gain and stays fp32; other plain ones become fp16. Raises
    ``BadModelFile`` for NaN, and for numbers that fp16 does not hold.
    """
    laid = {name: _laid(name, weight, table) for name, weight in weights.items()}
    tensors = {part: tensor for name, weight in laid.items() for part, tensor in _parts(name, weight).items()}
    text = torch.frombuffer(bytearray(tokenizer.to_bytes()), dtype=torch.uint8)
    # the widest numbers first, so that each tensor is aligned
    tensors = dict(sorted({**tensors, _TOKENIZER: text}.items(), key=lambda item: -item[1].element_size()))
    metadata = {
        "header_sha256": _HOLE.decode(),
        "format": SCHEMA,
        "config": canonical_json(config.to_dict()).decode(),
        "licence": licence,
        "provenance": canonical_json(dict(provenance)).decode(),
        "sha256": canonical_json({name: _sha256(tensor) for name, tensor in tensors.items()}).decode(),
        "weights": canonical_json({name: _form(weight) for name, weight in laid.items()}).decode(),
    }
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    header = safetensors.header(layout, metadata)
    at = 8 + len(_FIRST)
    assert header[8:at] == _FIRST
    sink.write(header[:at] + hashlib.sha256(header).hexdigest().encode() + header[at + len(_HOLE) :])
    for tensor in tensors.values():
        sink.write(_bytes(tensor))


def is_ternary(path: Path) -> bool:
    """Say whether the file begins as a ternary file does."""
    with path.open("rb") as file:
        return file.read(8 + len(_FIRST))[8:] == _FIRST


def read(path: Path) -> Opened:
    """Open a ternary file by memory map, its header checked. Raises ``BadModelFile``."""
    _check_header(path)
    try:
        metadata = safetensors.read_metadata(path)
        if metadata["format"] != SCHEMA:
            raise ValueError(f"its format is {metadata['format']!r}, not {SCHEMA}")
        forms = json.loads(metadata["weights"])
        shapes = {name: _shape(form) for name, form in forms.items()}
        config = Config.from_dict(json.loads(metadata["config"]))
        hashes, provenance = json.loads(metadata["sha256"]), json.loads(metadata["provenance"])
        licence = metadata["licence"]
        if not isinstance(provenance, dict):
            raise ValueError("its provenance is no table")
        expected = {
            _TOKENIZER,
            *(part for name, form in forms.items() for part in _names(name, form["form"])),
        }
        tensors = safetensors.read_tensors(path)
        if not hashes.keys() == expected == tensors.keys():
            raise ValueError("its tensors are not those that it says it holds")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadModelFile(f"{path} is not a whole ternary file ({error}); fetch it again.") from error
    kinds = {name: str(form["form"]) for name, form in forms.items()}
    return Opened(path, config, licence, provenance, shapes, kinds, hashes, tensors)


class Opened(Mapping[str, Weight]):
    """An open file: its weights by name, as they are at rest, each checked against its hash when it is read.

    Raises ``BadModelFile`` for a flipped bit, naming the tensor.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        licence: str,
        provenance: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        kinds: Mapping[str, str],
        hashes: Mapping[str, str],
        tensors: Mapping[str, Tensor],
    ) -> None:
        self.path, self.config, self.licence, self.provenance = path, config, licence, provenance
        self.shapes, self._kinds, self._hashes, self._tensors = shapes, kinds, hashes, tensors

    def __getitem__(self, name: str) -> Weight:
        kind = self._kinds[name]
        parts = [self._checked(part) for part in _names(name, kind)]
        try:
            weight: Weight = parts[0]
            if kind == "ternary":
                weight = TernaryTensor(parts[0], parts[1], self.shapes[name])
            elif kind in ("int8", "int4"):
                bits: Literal[4, 8] = 8 if kind == "int8" else 4
                weight = SteppedTensor(parts[0], parts[1], self.shapes[name], bits)
        except BadModelFile as error:
            raise BadModelFile(f"Tensor {name} of {self.path} does not fit: {error}") from error
        if isinstance(weight, Tensor) and (tuple(weight.shape), _kind(weight)) != (self.shapes[name], kind):
            raise BadModelFile(
                f"Tensor {name} of {self.path} is {weight.dtype} of the shape {tuple(weight.shape)}, not "
                f"{kind} of the shape {self.shapes[name]} as the file says; fetch it again."
            )
        return weight

    def __contains__(self, name: object) -> bool:
        return name in self._kinds

    def __iter__(self) -> Any:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def restored(self, name: str) -> Tensor:
        """A weight in fp32."""
        weight = self[name]
        return weight.float() if isinstance(weight, Tensor) else weight.restored()

    def tokenizer_bytes(self) -> bytes:
        """The tokenizer, as ``Tokenizer.from_bytes`` reads it."""
        return self._checked(_TOKENIZER).numpy().tobytes()

    def check(self) -> None:
        """Compare every byte with its hash, and every tensor with its form."""
        for name in self:
            self.restored(name)
        self.tokenizer_bytes()

    def names(self, name: str) -> list[str]:
        """The tensors of the container in which a weight lies."""
        return _names(name, self._kinds[name])

    def sizes(self) -> dict[str, int]:
        """The bytes of each tensor in the file."""
        return {name: tensor.nbytes for name, tensor in self._tensors.items()}

    def _checked(self, part: str) -> Tensor:
        tensor = self._tensors[part]
        if _sha256(tensor) != self._hashes[part]:
            raise BadModelFile(
                f"Tensor {part} of {self.path} is damaged: its bytes don't have the hash that the file "
                "states. Fetch it again."
            )
        return tensor


def _laid(name: str, weight: Weight, table: Table) -> Weight:
    """The weight as it is kept."""
    if not isinstance(weight, Tensor):
        return weight
    weight = weight.detach().cpu().float()
    if name in _TABLES and table == "int8":
        return SteppedTensor.of(weight, bits=8)
    if name in _TABLES and table == "int4":
        fits = weight.shape[-1] % _INT4_GROUP == 0
        return SteppedTensor.of(weight, bits=4, group=_INT4_GROUP if fits else None)
    exact = weight.dim() == 1 or (name in _TABLES and table == "fp32")
    kept = weight if exact else weight.half()
    if not bool(kept.isfinite().all()):
        raise BadModelFile(
            f"Tensor {name} holds NaN, infinity, or numbers beyond fp16; the model is damaged."
        )
    return kept.contiguous()


def _parts(name: str, weight: Weight) -> dict[str, Tensor]:
    if isinstance(weight, Tensor):
        return {name: weight}
    return {f"{name}.{part}": getattr(weight, part).contiguous() for part in _PARTS[_kind(weight)]}


def _names(name: str, kind: str) -> list[str]:
    return [f"{name}.{part}" for part in _PARTS[kind]] if kind in _PARTS else [name]


def _kind(weight: Weight) -> str:
    if isinstance(weight, TernaryTensor):
        return "ternary"
    if isinstance(weight, SteppedTensor):
        return f"int{weight.bits}"
    return {torch.float32: "fp32", torch.float16: "fp16"}.get(weight.dtype, "unknown")


def _form(weight: Weight) -> dict[str, Any]:
    return {"form": _kind(weight), "shape": list(weight.shape)}


def _shape(form: Mapping[str, Any]) -> tuple[int, ...]:
    if set(form) != {"form", "shape"} or form["form"] not in {*_PARTS, "fp32", "fp16"}:
        raise ValueError(f"it holds a weight of the unknown form {form!r:.100}")
    if not form["shape"] or any(type(n) is not int or n < 1 for n in form["shape"]):
        raise ValueError(f"it holds a weight of the shape {form['shape']!r:.100}")
    return tuple(form["shape"])


def _check_header(path: Path) -> None:
    """Raise ``BadModelFile`` unless the header has the hash that it states of itself."""
    raw = safetensors.read_header_bytes(path)
    at = 8 + len(_FIRST)
    stated = raw[at : at + len(_HOLE)]
    blank = raw[:at] + _HOLE + raw[at + len(_HOLE) :]
    if not re.fullmatch(b"[0-9a-f]{64}", stated) or hashlib.sha256(blank).hexdigest().encode() != stated:
        raise BadModelFile(
            f"The header of {path} is damaged, or this is no ternary file: it does not have the hash that it "
            "states. Fetch it again."
        )


def _bytes(tensor: Tensor) -> memoryview:
    data: memoryview = tensor.reshape(-1).view(torch.uint8).numpy().data
    return data


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(_bytes(tensor)).hexdigest()
