"""Pre-aggregation: each vector is replaced by a mean of some, before a rule sees them.

Both are a matrix that the rule's vectors are multiplied by. Nearest-neighbour mixing (NNM: Allouah et al.
2302.01772, Algorithm 2) brings every standard rule to the optimal order of resilience when honest vectors
differ. Bucketing (Karimireddy et al. 2006.09365, Algorithm 1) averages random groups: fewer vectors of less
spread, and as many liars.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sharedllm.robust.vectors import squared_distances

__all__ = ["bucketing", "nnm"]


def nnm(gram_KK: Tensor, f: int) -> Tensor:
    """Average each vector with its n − f − 1 nearest: ``mix_KK`` (rows sum to one)."""
    count = len(gram_KK) - f
    nearest_KN = squared_distances(gram_KK).argsort(dim=1, stable=True)[:, :count]
    return torch.zeros_like(gram_KK).scatter_(1, nearest_KN, 1 / count)


def bucketing(workers: int, bucket: int, generator: torch.Generator) -> Tensor:
    """Average random groups of ``bucket`` vectors, the last perhaps fewer: ``mix_MK`` (rows sum to one)."""
    order_K = torch.randperm(workers, generator=generator)
    mix_MK = torch.zeros(-(-workers // bucket), workers, dtype=torch.float64)
    for row_K, members in zip(mix_MK, torch.split(order_K, bucket), strict=True):
        row_K[members] = 1 / len(members)
    return mix_MK
