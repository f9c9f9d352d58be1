"""One arm against another, user by user: intervals over documents, wins, e-values, the mean over users."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sharedllm.bets.evidence import Interval, bootstrap, sign_test, wealth
from sharedllm.bets.losses import Losses

__all__ = ["BOUND_NATS", "Compared", "Pooled", "compare", "median_perplexity", "share"]

BOUND_NATS = 1.0  # a document's mean difference is clipped to ± this before money is bet on it


@dataclass(frozen=True)
class Pooled:
    """What a comparison says of users as a whole: each counts once.

    ``interval`` resamples users; ``sign_p`` is the exact one-sided sign test over them.
    """

    interval: Interval
    sign_p: float


@dataclass(frozen=True)
class Compared:
    """Loss of one arm minus loss of the other, nats per token: above zero, the second is better."""

    by_user: Mapping[str, Interval]
    documents: Mapping[str, NDArray[np.float64]]  # means_G per user
    resamples: int

    @property
    def estimate(self) -> dict[str, float]:
        """Give each user's mean over documents."""
        return {name: interval.estimate for name, interval in self.by_user.items()}

    @property
    def median(self) -> dict[str, float]:
        """Give each user's median over documents."""
        return {name: float(np.median(means_G)) for name, means_G in self.documents.items()}

    @property
    def low(self) -> dict[str, float]:
        """Give the lower ends of the users' 95 % intervals."""
        return {name: interval.low for name, interval in self.by_user.items()}

    @property
    def high(self) -> dict[str, float]:
        """Give the upper ends of the users' 95 % intervals."""
        return {name: interval.high for name, interval in self.by_user.items()}

    @property
    def won(self) -> int:
        """Count the users whose whole interval is above zero."""
        return sum(low > 0 for low in self.low.values())

    @property
    def log10_e(self) -> dict[str, float]:
        """Give log10 of each user's e-value against "at most zero", betting on documents in turn."""
        return {
            name: float(
                wealth(
                    np.clip(means_G, -BOUND_NATS, BOUND_NATS), bound=BOUND_NATS, alternative="greater"
                ).log_wealth[-1]
                / math.log(10)
            )
            for name, means_G in self.documents.items()
        }

    @property
    def pooled(self) -> Pooled:
        """Say what holds of users as a whole."""
        values = list(self.estimate.values())
        return Pooled(
            bootstrap(values, list(self.by_user), resamples=self.resamples, seed=0),
            sign_test(values, "greater"),
        )


def compare(losses: Losses, users: Sequence[str], worse: str, better: str, resamples: int) -> Compared:
    """Compare two arms of ``Circle.losses`` for every user."""
    return Compared(
        {name: losses.difference(name, worse, better, resamples) for name in users},
        {name: losses.by_document(name, worse, better) for name in users},
        resamples,
    )


def median_perplexity(losses: Losses) -> dict[str, dict[str, float]]:
    """Give, for each user and arm, the median over held-out documents of a document's perplexity."""
    found: dict[str, dict[str, list[float]]] = {}
    for user, _, nats in losses.documents():
        for arm, nats_T in nats.items():
            found.setdefault(user, {}).setdefault(arm, []).append(math.exp(nats_T.mean()))
    return {user: {arm: float(np.median(each)) for arm, each in row.items()} for user, row in found.items()}


def share(part: Compared, whole: Compared) -> Interval | None:
    """Give the users' mean of ``part`` over their mean of ``whole``, with an interval that resamples users.

    None where the whole, or a resample of it, is not above zero: a share of nothing says nothing.
    """
    parts_U, wholes_U = (np.array(list(side.estimate.values())) for side in (part, whole))
    picks = np.random.default_rng(0).integers(len(parts_U), size=(part.resamples, len(parts_U)))
    sums_R = wholes_U[picks].sum(1)
    if min(wholes_U.sum(), sums_R.min()) <= 0:
        return None
    low, high = np.quantile(parts_U[picks].sum(1) / sums_R, [0.025, 0.975])
    return Interval(float(parts_U.sum() / wholes_U.sum()), float(low), float(high), 0.95, len(parts_U))
