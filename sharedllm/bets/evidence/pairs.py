"""Paired differences clustered by document: interval, sign test, label permutation, equivalence.

*Covered*: dependence inside a cluster, unequal cluster sizes (each cluster counts once), ties in the sign
test.
*Not covered*: dependence between clusters, such as two books of one author that count as two; few clusters
make a percentile interval too narrow (about 90 % instead of 95 % at ten clusters), so read it beside an exact
test.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Interval", "bootstrap", "cluster_means", "inside", "permutation_p", "sign_test"]

ALTERNATIVES = ("two-sided", "greater", "less")
MAX_PERMUTED = 9  # 9! = 362,880 assignments
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval, in the unit of the differences."""

    estimate: float
    low: float
    high: float
    level: float
    clusters: int


def cluster_means(values: ArrayLike, clusters: Sequence[Any]) -> NDArray[np.float64]:
    """Average ``values_T`` within each cluster, in the order of first appearance: ``means_G``.

    Raises ``ValueError`` for lengths that differ, no values, or a value that is not finite.
    """
    values_T = np.asarray(values, dtype=np.float64)
    if values_T.ndim != 1 or len(values_T) != len(clusters) or len(values_T) == 0:
        raise ValueError(f"{values_T.size} values need as many cluster names, not {len(clusters)}.")
    if not np.isfinite(values_T).all():
        raise ValueError("Differences must be finite.")
    numbers: dict[Any, int] = {}
    index_T = np.array([numbers.setdefault(name, len(numbers)) for name in clusters])
    sums_G = np.bincount(index_T, weights=values_T)
    means_G: NDArray[np.float64] = sums_G / np.bincount(index_T)
    return means_G


def bootstrap(
    differences: ArrayLike,
    clusters: Sequence[Any],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean over clusters, by resampling whole clusters (Efron & Tibshirani 1993,
    §13).

    The estimate is the mean of the clusters' means: a long document counts as much as a short one.
    """
    means_G = cluster_means(differences, clusters)
    size = len(means_G)
    draw = np.random.default_rng(seed)
    rows = max(1, _CHUNK // size)
    parts = [
        means_G[draw.integers(size, size=(min(rows, resamples - start), size))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(parts), [tail, 1 - tail])
    return Interval(float(means_G.mean()), float(low), float(high), level, size)


def sign_test(differences: ArrayLike, alternative: str = "two-sided") -> float:
    """Exact p-value of the sign test against "as often above zero as below"; zeros are left out.

    ``greater``: the alternative is that differences are mostly above zero. Give one difference per cluster.
    """
    _known(alternative)
    values = np.asarray(differences, dtype=np.float64)
    above, below = int((values > 0).sum()), int((values < 0).sum())
    trials = above + below

    def tail(least: int) -> float:
        return float(sum(math.comb(trials, k) for k in range(least, trials + 1)) / 2**trials)

    if alternative == "two-sided":
        return min(1.0, 2 * tail(max(above, below)))
    return tail(above if alternative == "greater" else below)


def permutation_p(scores: ArrayLike) -> float:
    """Exact p-value of a square table against "the labels of its columns don't matter" (ml: 1/U! at best).

    ``scores_UU[i, j]``: gain of adapter j on user i's text; higher is better. The statistic is mean diagonal
    − mean off-diagonal; the p-value is the share of all U! column assignments whose statistic is at least the
    observed one. Raises ``ValueError`` for a table that is not square, or larger than 9 × 9.
    """
    scores_UU = np.asarray(scores, dtype=np.float64)
    size = len(scores_UU)
    if scores_UU.shape != (size, size) or not 2 <= size <= MAX_PERMUTED or not np.isfinite(scores_UU).all():
        raise ValueError(
            f"A finite square table of 2 to {MAX_PERMUTED} rows is needed, not {scores_UU.shape}."
        )
    assignments = np.array(list(itertools.permutations(range(size))))
    # with the total fixed, the statistic grows with the sum of the diagonal alone
    sums = scores_UU[np.arange(size), assignments].sum(axis=1)
    tolerance = 1e-12 * np.abs(scores_UU).sum()  # ties stay ties whatever the order of summation
    return float((sums >= np.trace(scores_UU) - tolerance).mean())


def inside(interval: Interval, low: float, high: float) -> bool:
    """Say whether the interval lies within the margin ``[low, high]``: what "no more than X" must show
    (TOST).

    An interval of level 1 − 2α inside the margin is equivalence at level α (Schuirmann 1987).
    """
    return low <= interval.low and interval.high <= high


def _known(alternative: str) -> None:
    if alternative not in ALTERNATIVES:
        raise ValueError(f"alternative must be one of {', '.join(ALTERNATIVES)}, not {alternative!r}.")
