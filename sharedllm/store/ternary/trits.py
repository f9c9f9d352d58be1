"""Five trits to a byte: 1.6 bits each, where 1.585 (log₂ 3) is the least that uniform trits can have.

Byte ``j`` holds trits ``5j`` to ``5j + 4`` as ``Σ (trit + 1) · 3ⁱ``, the first one lowest, so it is at most
242. Only the end of a whole tensor is padded, with at most four zeros.

*Covered*: every byte that is no five trits (243–255), a wrong number of bytes, padding that is not zero: one
sequence of trits has one packed form. *Not covered*: flipped bits that leave a valid byte; the file's hashes
find those.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from sharedllm.errors import BadModelFile

__all__ = ["PER_BYTE", "RADIX", "pack", "packed_bytes", "unpack"]

PER_BYTE = 5
RADIX = 3**PER_BYTE
_FIVES = np.array([five[::-1] for five in itertools.product((-1, 0, 1), repeat=PER_BYTE)], dtype=np.int8)
_FIVE = np.dtype(f"V{PER_BYTE}")  # five trits as one item: a look-up then copies five bytes at once
_AT_ONCE = 1 << 15  # bytes whose look-up stays in the cache of one core; three times as fast (measured)


def packed_bytes(n: int) -> int:
    """The bytes that ``n`` trits take."""
    return -(-n // PER_BYTE)


def pack(trits: Tensor) -> Tensor:
    """Pack int8 trits in {−1, 0, 1}, of any shape, in the order in which they lie: uint8 ``[⌈n/5⌉]``.

    Raises ``ValueError`` for other numbers or another type.
    """
    if trits.dtype != torch.int8:
        raise ValueError(f"Trits are int8, not {trits.dtype}.")
    n = trits.numel()
    digits = torch.full((packed_bytes(n) * PER_BYTE,), 1, dtype=torch.uint8)
    digits[:n] = (trits.detach().reshape(-1) + 1).view(torch.uint8)
    if n and int(digits.max()) > 2:
        raise ValueError("A trit is -1, 0 or 1; there are other numbers among these.")
    packed = torch.zeros(packed_bytes(n), dtype=torch.uint8)
    for digit in reversed(digits.view(-1, PER_BYTE).unbind(1)):
        packed.mul_(3).add_(digit)
    return packed


def unpack(packed: Tensor, n: int, out: Tensor | None = None) -> Tensor:
    """The ``n`` trits of ``packed`` as int8 ``[n]``, into ``out`` if it is given.

    Raises ``BadModelFile`` for what ``pack`` can't have made.
    """
    refuse_foreign(packed, n)
    fives = np.empty(len(packed), dtype=_FIVE)
    table, data = _FIVES.view(_FIVE)[:, 0], packed.numpy()
    for at in range(0, len(data), _AT_ONCE):
        some = slice(at, at + _AT_ONCE)
        np.take(table, data[some], out=fives[some], mode="clip")
    trits = torch.from_numpy(fives.view(np.int8))[:n]
    return trits if out is None else out.copy_(trits)


def refuse_foreign(packed: Tensor, n: int) -> None:
    """Raise ``BadModelFile`` unless ``packed`` is what ``pack`` makes of some ``n`` trits."""
    if packed.dtype != torch.uint8 or packed.shape != (packed_bytes(n),):
        raise BadModelFile(
            f"{n:,} trits take {packed_bytes(n):,} bytes, but there are {packed.numel():,} of "
            f"{packed.dtype}; the model is damaged, fetch it again."
        )
    if not n:
        return
    if int(packed.max()) >= RADIX:
        raise BadModelFile(
            f"A byte of five trits is at most {RADIX - 1}, but one is {int(packed.max())}; the model is "
            "damaged, fetch it again."
        )
    rest = _FIVES[int(packed[-1])][n - PER_BYTE * (len(packed) - 1) :]
    if rest.any():
        raise BadModelFile("The trits after the last are not zero; the model is damaged, fetch it again.")
