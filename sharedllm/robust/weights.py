"""Rules that answer with a weighted sum of the vectors, found from their inner products alone.

A distance between any two weighted sums follows from G_KK, so Krum, the geometric median and centered
clipping never look at the P numbers: they cost K² P for G and nothing more.

Krum and Multi-Krum are Blanchard et al. 1703.02757 with n − f − 1 neighbours, as Allouah et al. 2302.01772
and ``byzfl`` have it (Blanchard: n − f − 2); Multi-Krum is the mean of the n − f best. The geometric median
is Weiszfeld's (1937), smoothed as in Pillutla et al. 1912.13445 and run until it stands (``TOLERANCE``); in
``byzfl`` it stops after three steps from zero with ν = 0.1, which is another point, and comes to the same one
with many steps and a small ν. Centered clipping is Karimireddy et al. 2012.10333; that it takes the median
distance for its radius when none is given is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharedllm.robust.vectors import squared_distances

__all__ = [
    "TOLERANCE",
    "Clipping",
    "centered_clipping",
    "geometric_median",
    "krum",
    "krum_scores",
    "mean",
    "multi_krum",
]

TOLERANCE = 1e-9  # of the typical distance: Weiszfeld's step below which the geometric median stands
_SMOOTHING = 1e-6  # of the typical distance: no vector is taken to be nearer than this
_MOST_STEPS = 2_000


@dataclass(frozen=True)
class Clipping:
    """How centered clipping works: around ``centre_P`` (the last aggregate; None: 0), ``iterations`` times.

    ``radius`` bounds what one worker can pull, in the unit of the vectors; None takes the median of the
    workers' distances from where the iteration stands, so that no unit need be known.
    """

    centre_P: Tensor | None = field(default=None, repr=False)
    radius: float | None = None
    iterations: int = 5


def mean(gram_KK: Tensor) -> Tensor:
    """Give every vector the same weight."""
    return torch.full_like(gram_KK[0], 1 / len(gram_KK))


def krum_scores(gram_KK: Tensor, f: int) -> Tensor:
    """Give each vector's mean squared distance from its n − f − 1 nearest neighbours."""
    nearest_KK = squared_distances(gram_KK).sort(1).values[:, 1 : len(gram_KK) - f]
    return nearest_KK.mean(1)


def krum(gram_KK: Tensor, f: int) -> Tensor:
    """Choose the vector of the best score (the first of equals)."""
    chosen_K = torch.zeros_like(gram_KK[0])
    chosen_K[krum_scores(gram_KK, f).argmin()] = 1.0
    return chosen_K


def multi_krum(gram_KK: Tensor, f: int) -> Tensor:
    """Average the n − f vectors of the best scores."""
    count = len(gram_KK) - f
    chosen_K = torch.zeros_like(gram_KK[0])
    chosen_K[krum_scores(gram_KK, f).argsort(stable=True)[:count]] = 1 / count
    return chosen_K


def geometric_median(gram_KK: Tensor) -> Tensor:
    """Minimise the sum of distances to all vectors, by Weiszfeld's iteration.

    If one of the vectors is the answer (Vardi & Zhang 2000, eq. 2.6), it is returned as it is. Else the
    iteration starts at the mean of that half of the vectors which is nearest to the most central one, so that
    a vector sent from far away does not have to be walked back from.
    """
    apart_KK = squared_distances(gram_KK).sqrt().numpy()
    g_KK = gram_KK.numpy()
    central = int(apart_KK.sum(1).argmin())
    away_K = apart_KK[central]
    near_K = away_K.argsort(kind="stable")[: len(g_KK) // 2 + 1]
    least = _SMOOTHING * away_K[near_K].max()
    at_K = (away_K <= least) / (away_K <= least).sum()
    if _settled(g_KK, away_K, central, least):
        return torch.from_numpy(at_K)
    at_K = np.bincount(near_K, minlength=len(g_KK)) / len(near_K)
    for _ in range(_MOST_STEPS):
        seen_K = g_KK @ at_K
        pull_K = 1 / np.sqrt(np.maximum(g_KK.diagonal() - 2 * seen_K + at_K @ seen_K, least**2))
        next_K = pull_K / pull_K.sum()
        step_K, at_K = next_K - at_K, next_K
        if step_K @ g_KK @ step_K <= (TOLERANCE / _SMOOTHING * least) ** 2:
            break
    return torch.from_numpy(at_K)


def _settled(g_KK: NDArray[np.float64], away_K: NDArray[np.float64], central: int, least: float) -> bool:
    """Say whether the other vectors pull on this one no harder than it, and those with it, hold on."""
    pull_K = np.where(away_K > least, 1 / np.maximum(away_K, least or 1.0), 0.0)
    together = (away_K <= least).sum()
    pull_K[central] = -pull_K.sum()
    return bool(pull_K @ g_KK @ pull_K <= together**2)


def centered_clipping(gram_SS: Tensor, workers: int, how: Clipping) -> Tensor:
    """Move from the centre by the mean of the differences, each cut to the radius, several times.

    The first ``workers`` of the S rows are the vectors; one more row is the centre, if there is one.
    """
    at_S = torch.zeros_like(gram_SS[0])
    at_S[workers:] = 1.0
    for _ in range(how.iterations):
        away_K = _away(gram_SS, at_S)[:workers]
        radius = away_K.median() if how.radius is None else torch.as_tensor(how.radius).to(away_K)
        share_K = (radius / away_K).clamp_max(1.0).nan_to_num(nan=1.0)
        at_S = at_S * (1 - share_K.mean())
        at_S[:workers] += share_K / workers
    return at_S


def _away(gram_KK: Tensor, at_K: Tensor) -> Tensor:
    """Give each vector's distance from the weighted sum ``at_K``."""
    seen_K = gram_KK @ at_K
    return (gram_KK.diagonal() - 2 * seen_K + at_K @ seen_K).clamp_min(0.0).sqrt()
