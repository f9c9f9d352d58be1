"""The trits of a model's blocks, and the empirical entropy that a coder of single trits can't go below.

*Covered*: each matrix has an entropy of its own. *Not covered*: what depends on the row, or on the trits
before; a coder that knew it could go below this limit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sharedllm.model import Transformer
from sharedllm.store import ternary
from sharedllm.store.ternary.rounding import Scale

__all__ = ["DIGITS", "Matrix", "counts_of", "drawn", "entropy_bits", "rounded_blocks"]

_BYTES = torch.arange(243, dtype=torch.uint8)
DIGITS = ternary.unpack(_BYTES, 5 * 243).view(243, 5).long().numpy() + 1  # byte by byte
_IN_BYTE = np.stack([np.bincount(digits, minlength=3) for digits in DIGITS])


@dataclasses.dataclass(frozen=True)
class Matrix:
    """``n`` trits, packed five to a byte."""

    packed: NDArray[np.uint8]
    n: int

    @classmethod
    def of(cls, trits: torch.Tensor) -> Matrix:
        """Pack int8 trits."""
        return cls(ternary.pack(trits).numpy(), trits.numel())


def rounded_blocks(model: Transformer, scale: Scale) -> dict[str, list[Matrix]]:
    """The trits of every hidden matrix, one scale per output row, block by block."""
    blocks: dict[str, list[Matrix]] = {}
    for name, weight in model.state_dict().items():
        if ternary.is_hidden(name):
            trits, _ = ternary.ternarise(weight, scale=scale)
            blocks.setdefault(name.split(".")[1], []).append(Matrix.of(trits))
    return blocks


def drawn(n: int, shares: Sequence[float], seed: int) -> Matrix:
    """Draw ``n`` independent trits, −1, 0 and 1 with these shares."""
    draw = np.random.default_rng(seed).choice(3, size=n, p=np.asarray(shares))
    return Matrix.of(torch.from_numpy((draw - 1).astype(np.int8)))


def counts_of(packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often −1, 0 and 1 occur among five times as many trits as bytes, padding included."""
    counts: NDArray[np.int64] = np.bincount(packed, minlength=243) @ _IN_BYTE
    return counts


def entropy_bits(matrices: Sequence[Matrix]) -> float:
    """The empirical entropy of all trits in bits: ``Σ −log₂`` of each one's share in its own matrix."""
    total = 0.0
    for matrix in matrices:
        counts = counts_of(matrix.packed)
        counts[1] -= 5 * len(matrix.packed) - matrix.n
        total -= sum(int(count) * math.log2(count / matrix.n) for count in counts if count)
    return total
