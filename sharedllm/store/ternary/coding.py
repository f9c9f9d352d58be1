"""The form in which a ternary file travels: one Zstandard frame around all of it, which any ``zstd`` opens.

Trits are nearly random bytes, so what can be saved is their entropy, and the frame's Huffman codes come
within 0.3 % of it [measured on SmolLM2-135M, rounded]. A range coder comes within 0.02 %, and decodes
tens of times more slowly (``python -m tests.benchmarks.wire packing``). RFC 8878; the checksum is its XXH64,
and the file within has hashes of its own.

*Covered*: truncation, a flipped bit, a frame that holds more or less than it announces, a window too large
for memory. *Not covered*: a frame that announces, and holds, more than anybody wants; the disk must have
room.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, BinaryIO

from sharedllm.errors import BadModelFile, MissingSource
from sharedllm.store.blobs import Sink

__all__ = ["SUFFIX", "announced_bytes", "decode", "encode", "is_coded"]

SUFFIX = ".zst"
_MAGIC = b"\x28\xb5\x2f\xfd"
_LEVEL = 9
_WINDOW_BYTES = 1 << 23  # what a decoder must hold; level 9 needs half of it
_CHUNK_BYTES = 1 << 20
_FRAME_HEADER_BYTES = 18
_PIECE_BYTES = 1 << 12  # a frame made to harm could blow up each to 128 MiB


def is_coded(path: Path) -> bool:
    """Say whether the file begins as a Zstandard frame does."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def encode(path: Path, sink: BinaryIO) -> None:
    """Write the file at ``path`` as one frame that states its size. Raises ``MissingSource``."""
    zstandard = _library()
    parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, write_checksum=1)
    with path.open("rb") as file:
        zstandard.ZstdCompressor(compression_params=parameters).copy_stream(
            file, sink, size=path.stat().st_size, read_size=_CHUNK_BYTES, write_size=_CHUNK_BYTES
        )


def decode(path: Path, sink: Sink) -> None:
    """Write what the frame at ``path`` holds, piece by piece.

    Raises ``BadModelFile`` for a damaged frame, ``MissingSource`` without the library.
    """
    zstandard = _library()
    left = size = announced_bytes(path)
    try:
        frame = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).decompressobj()
        with path.open("rb") as file:
            while not frame.eof and (coded := file.read(_PIECE_BYTES)):
                chunk = frame.decompress(coded)
                left -= len(chunk)
                if left < 0:
                    raise ValueError(f"it holds more than the {size:,} bytes that it announces")
                sink.write(chunk)
            if left or not frame.eof or frame.unused_data or file.read(1):
                raise ValueError("it is cut short, or something follows it")
    except (zstandard.ZstdError, ValueError) as error:
        raise BadModelFile(f"{path} is not a whole Zstandard frame ({error}); fetch it again.") from error


def announced_bytes(path: Path) -> int:
    """How many bytes a frame says it holds. Raises what ``decode`` raises."""
    zstandard = _library()
    try:
        with path.open("rb") as file:
            size: int = zstandard.get_frame_parameters(file.read(_FRAME_HEADER_BYTES)).content_size
        if size == zstandard.CONTENTSIZE_UNKNOWN:
            raise ValueError("it does not say how many bytes it holds")
    except (zstandard.ZstdError, ValueError) as error:
        raise BadModelFile(f"{path} is not a whole Zstandard frame ({error}); fetch it again.") from error
    return size


def _library() -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError as error:
        raise MissingSource(
            "A model in Zstandard's form needs the package zstandard: pip install zstandard; or unpack it "
            "with `zstd -d`, or export it without --coding."
        ) from error
