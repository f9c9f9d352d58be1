"""All pairs of users: whom the mean of two adapters helps, and how many pairs it helps on both sides.

*Covered*: a pair counts by the user whom it helps less. *Not covered*: dependence between pairs, which share
users; so counts have no interval here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sharedllm.bets.evidence import Interval
from sharedllm.bets.losses import Losses

__all__ = ["Pairs", "pairwise"]


@dataclass(frozen=True)
class Pairs:
    """What both users of each pair gain, nats per token: the first named user's gain, then the second's."""

    gains: Mapping[tuple[str, str], tuple[Interval, Interval]]

    @property
    def helped(self) -> int:
        """Count the pairs that gain on both sides, by the estimate."""
        return sum(all(gain.estimate > 0 for gain in both) for both in self.gains.values())

    @property
    def surely_helped(self) -> int:
        """Count the pairs whose whole intervals are above zero on both sides."""
        return sum(all(gain.low > 0 for gain in both) for both in self.gains.values())

    @property
    def less(self) -> dict[str, Interval]:
        """Give the gain of the user whom each pair helps less, by the pair's two names."""
        return {
            ", ".join(pair): min(both, key=lambda gain: gain.estimate) for pair, both in self.gains.items()
        }

    def table(self, users: Sequence[str]) -> NDArray[np.float64]:
        """Give the estimates of ``less`` as ``scores_UU``, both halves alike and zeros on the diagonal."""
        scores_UU = np.zeros((len(users), len(users)))
        for (one, two), gain in zip(self.gains, self.less.values(), strict=True):
            i, j = users.index(one), users.index(two)
            scores_UU[i, j] = scores_UU[j, i] = gain.estimate
        return scores_UU


def pairwise(losses: Losses, users: Sequence[str], against: str, resamples: int) -> Pairs:
    """Compare each user's arm ``with NAME`` of every other user with the arm ``against``."""

    def gain(user: str, other: str) -> Interval:
        return losses.difference(user, against, f"with {other}", resamples)

    return Pairs(
        {(one, two): (gain(one, two), gain(two, one)) for one, two in itertools.combinations(users, 2)}
    )
