"""Rules that look at each coordinate by itself: Yin et al. 1803.01498, Definitions 1 and 2.

The median of an even count is the mean of the two in the middle, as in numpy and ``byzfl``.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["median", "trimmed_mean"]


def median(x_KC: Tensor) -> Tensor:
    """Give each column's median."""
    sorted_KC = x_KC.sort(0).values
    low, high = (len(x_KC) - 1) // 2, len(x_KC) // 2
    return sorted_KC[low] * 0.5 + sorted_KC[high] * 0.5


def trimmed_mean(x_KC: Tensor, f: int) -> Tensor:
    """Give each column's mean without its f largest and f smallest."""
    kept_KC = x_KC.sort(0).values[f : len(x_KC) - f]
    return kept_KC.mul(1 / len(kept_KC)).sum(0)
