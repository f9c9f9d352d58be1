"""Safetensors files: the header is checked against the file first, and weights are mapped, not copied.

Format: 8 bytes of length, a JSON header, then the tensors (huggingface/safetensors, README "Format"). Files
are mapped copy-on-write: training in place changes memory, never the file.

*Covered*: truncation, overlaps and gaps, sizes that don't fit their shape, a header that claims more than
there is. *Not covered*: a file that somebody truncates while it is mapped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from sharedllm.errors import BadModelFile
from sharedllm.store.blobs import Sink

__all__ = [
    "Entry",
    "Layout",
    "header",
    "read_header",
    "read_header_bytes",
    "read_metadata",
    "read_tensors",
    "write",
]

Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]

_HEADER_CEILING_BYTES = 100_000_000  # as the reference implementation
_ALIGNMENT_BYTES = 64
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_TAGS = {dtype: tag for tag, dtype in _DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor's type, its shape, and where in the file its bytes begin and end."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(path: Path) -> dict[str, Entry]:
    """Read and check the header. Raises ``BadModelFile``; allocates no more than the header itself."""
    raw = read_header_bytes(path)
    with _whole(path):
        return _entries(json.loads(raw[8:]), len(raw), path.stat().st_size)


def read_metadata(path: Path) -> dict[str, str]:
    """Read what the header says besides its tensors. Raises ``BadModelFile``."""
    raw = read_header_bytes(path)
    with _whole(path):
        metadata = json.loads(raw[8:]).get("__metadata__", {})
        if any(not isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata hold something that is no text")
        return dict(metadata)


def read_header_bytes(path: Path) -> bytes:
    """Read the length and the header, as they are in the file. Raises ``BadModelFile``."""
    with _whole(path):
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            length = struct.unpack("<Q", first)[0] if len(first) == 8 else None
            if length is None or length > min(size - 8, _HEADER_CEILING_BYTES):
                raise ValueError(f"its {size} bytes are too few for the header they announce")
            return first + file.read(length)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadModelFile(
            f"{path} is not a whole safetensors file ({error}); download or save it again."
        ) from error


def _entries(header: dict[str, Any], start: int, size: int) -> dict[str, Entry]:
    header.pop("__metadata__", None)
    entries = {}
    for name, facts in header.items():
        if facts["dtype"] not in _DTYPES:
            raise ValueError(f"tensor {name} has the unknown type {facts['dtype']!r}")
        dtype, shape, (begin, end) = _DTYPES[facts["dtype"]], tuple(facts["shape"]), facts["data_offsets"]
        if any(type(n) is not int or n < 0 for n in (*shape, begin, end)):
            raise ValueError(f"tensor {name} has a shape or offset that is not a whole number")
        if math.prod(shape) * dtype.itemsize != end - begin:
            raise ValueError(f"tensor {name} has {end - begin} bytes, which do not fit its shape {shape}")
        entries[name] = Entry(dtype, shape, start + begin, start + end)
    at = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != at:
            raise ValueError(f"tensor {name} overlaps another or leaves a gap")
        at = entry.stop
    if at != size:
        raise ValueError(f"its tensors end at byte {at}, but the file ends at {size}")
    return entries


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Map the file and return its tensors without copying them. Raises ``BadModelFile``."""
    entries = read_header(path)
    size = path.stat().st_size
    try:
        whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    except RuntimeError as error:
        raise BadModelFile(f"{path} can't be mapped into memory ({error}); is it still there?") from error
    return {name: _view(whole, entry) for name, entry in entries.items()}


def _view(whole: torch.Tensor, entry: Entry) -> torch.Tensor:
    raw = whole[entry.start : entry.stop]
    if entry.start % entry.dtype.itemsize:
        raw = raw.clone()  # a foreign file may pad its header to any length; torch needs aligned tensors
    return raw.view(entry.dtype).view(entry.shape)


def write(sink: Sink, layout: Layout, tensors: Iterable[torch.Tensor]) -> None:
    """Write tensors one after the other, as ``layout`` orders them, so that one is in memory at a time."""
    sink.write(header(layout, {"format": "pt"}))
    for (name, (dtype, shape)), tensor in zip(layout.items(), tensors, strict=True):
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {shape} as announced."
            )
        if tensor.numel():
            sink.write(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)


def header(layout: Layout, metadata: Mapping[str, str]) -> bytes:
    """The beginning of a file whose tensors lie as ``layout`` orders them: length and header."""
    facts: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name, (dtype, shape) in layout.items():
        end = at + math.prod(shape) * dtype.itemsize
        facts[name] = {"dtype": _TAGS[dtype], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(facts, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT_BYTES)
    return struct.pack("<Q", len(text)) + text
