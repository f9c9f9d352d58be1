"""Few levels per number: groups of numbers share a scale, which travels as bfloat16.

| codec | levels of a number v in a group of 512 | bits with scale |
|---|---|---:|
| int8 | −127 … 127 times (the largest magnitude / 127) | 8.03 |
| 2bit | −1.5, −0.5, 0.5, 1.5 times the scale of least squared error | 2.03 |

With levels q that share v's signs, the least-squares scale ⟨v, q⟩/⟨q, q⟩ leaves ‖v‖² − ⟨v, q⟩²/‖q‖² < ‖v‖²:
a contraction, which is what error feedback needs (Karimireddy et al., arXiv 1901.09847, §4).

A bfloat16 has fp32's range, so that no scale overflows that the numbers themselves do not, and 8 bits, so
that scale times level is exact in fp32. *Covered*: groups of zeros, a last group that is short. *Not
covered*: numbers above 1e38 in magnitude, which ``encode`` refuses.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["GROUP", "SCALE_BYTES", "from_bf16", "nearest", "pack_2bit", "to_bf16", "two_bits", "unpack_2bit"]

Array = NDArray[np.floating]

GROUP = 512
SCALE_BYTES = 2
_MOST = 127
_PER_BYTE = 4


def to_bf16(values: Array) -> bytes:
    """Round to bfloat16, little-endian."""
    rounded = torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)
    return rounded.view(torch.int16).numpy().astype("<i2").tobytes()


def from_bf16(data: memoryview) -> NDArray[np.float32]:
    """Read what ``to_bf16`` wrote, as fp32."""
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


def nearest(values_GN: Array) -> tuple[bytes, NDArray[np.int8]]:
    """Round each group to 255 levels: its scales (bfloat16), and ``codes_GN`` in [−127, 127]."""
    scales = to_bf16(np.abs(values_GN).max(1) / _MOST)
    scale_G1 = from_bf16(memoryview(scales)).astype(values_GN.dtype)[:, None]
    codes_GN = np.rint(_divided(values_GN, scale_G1)).clip(-_MOST, _MOST)
    return scales, codes_GN.astype(np.int8)


def two_bits(values_GN: Array, real_GN: NDArray[np.bool_]) -> tuple[bytes, NDArray[np.uint8]]:
    """Round each group to four levels: its scales (bfloat16), and ``codes_GN`` in [0, 3].

    ``real_GN`` says which numbers count; the others only fill up a group. The level of code c is c − 1.5.
    """
    largest_G1 = np.abs(values_GN).max(1, keepdims=True)
    unit_GN = _divided(values_GN, largest_G1)
    rms_G1 = np.sqrt((unit_GN**2).sum(1, keepdims=True) / np.maximum(real_GN.sum(1, keepdims=True), 1))
    codes_GN = np.floor(_divided(unit_GN, rms_G1)).clip(-2, 1) + 2
    levels_GN = (codes_GN - 1.5) * real_GN
    fit_G = (unit_GN * levels_GN).sum(1) / np.maximum((levels_GN**2).sum(1), 0.25)
    return to_bf16(fit_G * largest_G1[:, 0]), codes_GN.astype(np.uint8)


def pack_2bit(codes: NDArray[np.uint8]) -> bytes:
    """Put four codes into a byte, the first one lowest."""
    padded = np.pad(codes, (0, -len(codes) % _PER_BYTE)).reshape(-1, _PER_BYTE)
    shifted = padded << np.array([0, 2, 4, 6], dtype=np.uint8)
    return bytes(np.bitwise_or.reduce(shifted, axis=1).astype(np.uint8).tobytes())


def unpack_2bit(data: memoryview) -> NDArray[np.uint8]:
    """Read four codes from every byte."""
    packed = np.frombuffer(data, np.uint8)[:, None]
    codes: NDArray[np.uint8] = (packed >> np.array([0, 2, 4, 6], dtype=np.uint8)) & np.uint8(3)
    return codes.reshape(-1)


def _divided(values_GN: Array, by_G1: Array) -> Array:
    """Divide, where a divisor of zero gives zero."""
    quotient: Array = np.divide(values_GN, by_G1, out=np.zeros_like(values_GN), where=by_G1 != 0)
    return quotient
