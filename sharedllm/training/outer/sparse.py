"""The largest 64 of every 4,096 numbers, at two bits each, with indices that cost eight bits.

This is SparseLoCo's choice (arXiv 2603.08163: 1.56 % of the numbers in chunks of 4,096, at two bits). It
gives each index 12 bits; in rising order they fit into 8 (Elias–Fano: six low bits as they are, the high six
as unary steps in a bitmap), 0.6 above the entropy of a random choice, log₂ C(4096, 64)/64 = 7.4. So a chunk
takes 82 bytes: 2 of scale, 16 of levels, 48 and 16 of indices; a 200th of fp32.

*Covered*: every bit string of a chunk's length either decodes to 64 rising indices or is refused. *Not
covered*: a vector shorter than a chunk, which still takes 82 bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sharedllm.errors import BadUpdate
from sharedllm.training.outer.quantiser import (
    SCALE_BYTES,
    Array,
    from_bf16,
    pack_2bit,
    two_bits,
    unpack_2bit,
)

__all__ = ["CHUNK", "CHUNK_BYTES", "KEPT", "read_top", "write_top"]

CHUNK, KEPT = 4096, 64
_LOW_BITS = 6
_LEVEL_BYTES = KEPT // 4
_LOW_BYTES = KEPT * _LOW_BITS // 8
_HIGH_BYTES = (KEPT + (CHUNK >> _LOW_BITS)) // 8
CHUNK_BYTES = SCALE_BYTES + _LEVEL_BYTES + _LOW_BYTES + _HIGH_BYTES


def write_top(values: Array) -> bytes:
    """Write the largest numbers of every chunk: all scales, all levels, all low and all high halves."""
    chunks_CN = np.pad(values, (0, -len(values) % CHUNK)).reshape(-1, CHUNK)
    at_CK = np.sort(np.argpartition(-np.abs(chunks_CN), KEPT - 1, axis=1)[:, :KEPT], axis=1)
    real_CK = at_CK + np.arange(len(chunks_CN))[:, None] * CHUNK < len(values)
    scales, codes_CK = two_bits(np.take_along_axis(chunks_CN, at_CK, axis=1), real_CK)
    low_CKB = np.unpackbits((at_CK & 63).astype(np.uint8)[..., None], axis=-1)[..., 8 - _LOW_BITS :]
    steps_CB = np.zeros((len(chunks_CN), _HIGH_BYTES * 8), np.uint8)
    np.put_along_axis(steps_CB, (at_CK >> _LOW_BITS) + np.arange(KEPT), 1, axis=1)
    return b"".join(
        (
            scales,
            pack_2bit(codes_CK.reshape(-1)),
            np.packbits(low_CKB.reshape(len(chunks_CN), -1), axis=1).tobytes(),
            np.packbits(steps_CB, axis=1).tobytes(),
        )
    )


def read_top(payload: memoryview, numbers: int) -> NDArray[np.float32]:
    """Read what ``write_top`` wrote of ``numbers`` numbers; the length has been checked.

    Raises ``BadUpdate`` for indices that do not rise or leave their chunk.
    """
    chunks = len(payload) // CHUNK_BYTES
    ends = np.cumsum([SCALE_BYTES, _LEVEL_BYTES, _LOW_BYTES]) * chunks
    scale_C1 = from_bf16(payload[: ends[0]])[:, None]
    levels_CK = unpack_2bit(payload[ends[0] : ends[1]]).reshape(chunks, KEPT).astype(np.float32) - 1.5
    at_CK = _indices(payload[ends[1] : ends[2]], payload[ends[2] :], chunks)
    values = np.zeros((chunks, CHUNK), np.float32)
    np.put_along_axis(values, at_CK, levels_CK * scale_C1, axis=1)
    return values.reshape(-1)[:numbers]


def _indices(low: memoryview, high: memoryview, chunks: int) -> NDArray[np.int64]:
    low_CKB = np.unpackbits(np.frombuffer(low, np.uint8)).reshape(chunks, KEPT, _LOW_BITS)
    steps_CB = np.unpackbits(np.frombuffer(high, np.uint8)).reshape(chunks, -1)
    if not (steps_CB.sum(1, dtype=np.int64) == KEPT).all():
        raise BadUpdate(f"A chunk of the update does not name {KEPT} numbers; ask the worker to send again.")
    high_CK = steps_CB.nonzero()[1].reshape(chunks, KEPT) - np.arange(KEPT)
    at_CK = (high_CK << _LOW_BITS) | (low_CKB @ (1 << np.arange(_LOW_BITS)[::-1]))
    if not ((np.diff(at_CK, axis=1) > 0).all() and (at_CK < CHUNK).all()):
        raise BadUpdate("The update names numbers out of order or out of its chunks; ask for it again.")
    return at_CK
