"""The header of a GGUF file, checked count by count against the file's size before anything is allocated.

It is parsed here and not by ``gguf.GGUFReader``, which trusts every count it reads (a damaged array length
sends it through 2⁶⁰ iterations) and takes 25 times as long. Format: ggml-org/ggml, ``docs/gguf.md``.

*Covered*: truncation anywhere, counts and offsets that lie, unknown value and tensor types, shapes that
don't fit their blocks. *Not covered*: big-endian files, which are refused as an unknown version.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from sharedllm.errors import BadModelFile

__all__ = ["Contents", "Stored", "read_contents"]

# GGUF's value types by number: how struct reads them; 8 is a string, 9 an array
_SCALARS = dict(enumerate(f"<{c}" for c in "BbHhIif?")) | {10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_DEEPEST = 4


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
