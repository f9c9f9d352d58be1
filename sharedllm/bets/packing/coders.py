"""Three coders for the trits of a block: zlib and Zstandard on packed bytes, and an ideal one, a range coder.

The first two know nothing of trits; they find the shares of 243 byte values. The third, rANS of the library
``constriction`` (Bamler, 2201.01741; Duda, 1311.2540), is told each matrix's shares of −1, 0 and 1, in 24
bytes. Everything that a decoder needs is counted, but the number of trits, which a file's header says.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharedllm.bets.packing.entropy import DIGITS, Matrix, counts_of
from sharedllm.errors import MissingSource

__all__ = ["CODERS", "Coder"]

_ZSTD_LEVEL = 9  # that of the coded file

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Coder:
    """``encode`` a block's matrices; ``decode`` the packed bytes of all of them, given their lengths."""

    encode: Callable[[Sequence[Matrix]], bytes]
    decode: Callable[[bytes, Sequence[int]], Bytes]


def _zlib(matrices: Sequence[Matrix]) -> bytes:
    return zlib.compress(_together(matrices).tobytes())


def _unzlib(coded: bytes, lengths: Sequence[int]) -> Bytes:
    return np.frombuffer(zlib.decompress(coded), dtype=np.uint8)


def _zstd(matrices: Sequence[Matrix]) -> bytes:
    coded: bytes = (
        _library("zstandard").ZstdCompressor(level=_ZSTD_LEVEL).compress(_together(matrices).tobytes())
    )
    return coded


def _unzstd(coded: bytes, lengths: Sequence[int]) -> Bytes:
    data = _library("zstandard").ZstdDecompressor().decompress(coded, max_output_size=sum(lengths))
    return np.frombuffer(data, dtype=np.uint8)


def _ranged(matrices: Sequence[Matrix]) -> bytes:
    parts = []
    for matrix in matrices:
        counts = counts_of(matrix.packed)
        coder = _library("constriction").stream.stack.AnsCoder()
        coder.encode_reverse(matrix.packed.astype(np.int32), _model(counts))
        words = coder.get_compressed()
        parts += [
            counts.astype("<i8").tobytes(),
            len(words).to_bytes(4, "little"),
            words.astype("<u4").tobytes(),
        ]
    return b"".join(parts)


def _unranged(coded: bytes, lengths: Sequence[int]) -> Bytes:
    parts, at = [], 0
    for length in lengths:
        counts = np.frombuffer(coded, "<i8", 3, at)
        n_words = int.from_bytes(coded[at + 24 : at + 28], "little")
        words = np.frombuffer(coded, "<u4", n_words, at + 28).astype(np.uint32)
        at += 28 + 4 * n_words
        parts.append(_library("constriction").stream.stack.AnsCoder(words).decode(_model(counts), length))
    return np.concatenate(parts).astype(np.uint8)


def _model(counts: NDArray[np.int64]) -> Any:
    """The shares of the 243 bytes if their trits are independent."""
    shares = (counts / counts.sum())[DIGITS].prod(axis=1)
    return _library("constriction").stream.model.Categorical(shares, perfect=False)


def _together(matrices: Sequence[Matrix]) -> Bytes:
    return np.concatenate([matrix.packed for matrix in matrices])


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingSource(f"Comparing coders needs the package {name}: pip install {name}.") from error


CODERS = {
    "zlib": Coder(_zlib, _unzlib),
    "zstd": Coder(_zstd, _unzstd),
    "range": Coder(_ranged, _unranged),
}
