"""Whom requests go to: base quality × reputation^α, and three ways to make a reputation of ratings.

*Naive*: the mean of all ratings. *Decayed*: the mean with older ones counting less. *Diverse*: every user has
one voice on each specialist (the decayed mean of its own ratings; ``NEWCOMER`` where it has none), and a
reputation is the highest score that more than a third of **all** users stand behind. Users who have said
nothing count, so that a bloc can't make a name by being the first to speak; a bloc of a third or less can
neither lift a specialist above ``NEWCOMER`` nor, while more than a third of all users are content, push one
down.

Symbols: U users, N specialists; scores lie in [0, 1].

*Covered*: many ratings by one user, a bloc that praises its own and blames others, a specialist that takes a
new identity (it starts at ``NEWCOMER``). *Not covered*: a bloc of more than a third; one that serves a third
of the users well and the others badly; new *users* in numbers, who are members and need certificates; a
newcomer's wait until a third have tried it. Reputation says what was said, not what is.

Source: b088 (seed): weight = base_quality × reputation^α.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sharedllm.errors import SharedLLMError

__all__ = ["ALPHA", "BACKING", "NEWCOMER", "BadRating", "Ratings", "shares"]

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int_] | int

NEWCOMER = 0.3
BACKING = 1 / 3
ALPHA = 3.0


class BadRating(SharedLLMError):
    """A score is not in [0, 1], or a weight can't be one."""


class Ratings:
    """What ``users`` said of ``specialists``; a rating counts half after ``half_life`` calls of ``age``."""

    def __init__(self, users: int, specialists: int, half_life: float) -> None:
        self._decay = 0.5 ** (1 / half_life)
        self._sum_UN, self._count_UN = np.zeros((2, users, specialists))
        self._late_UN, self._weight_UN = np.zeros((2, users, specialists))

    def add(self, user: Index, specialist: Index, score: Array | float, times: int = 1) -> None:
        """Ratings, each ``times`` over; the three may be arrays of one length. Raises ``BadRating``."""
        scores = np.asarray(score, dtype=np.float64)
        if not np.all((scores >= 0) & (scores <= 1)):
            raise BadRating("A score lies from 0 to 1; one that was given does not, and none was counted.")
        given = np.full_like(scores, times)
        where: Any = (user, specialist)
        for total in (self._sum_UN, self._late_UN):
            np.add.at(total, where, scores * times)
        for total in (self._count_UN, self._weight_UN):
            np.add.at(total, where, given)

    def age(self) -> None:
        """Let one unit of time pass."""
        self._late_UN *= self._decay
        self._weight_UN *= self._decay

    def forget(self, specialist: Index) -> None:
        """These specialists are others now: nobody has rated them."""
        for total in (self._sum_UN, self._count_UN, self._late_UN, self._weight_UN):
            total[:, specialist] = 0.0

    def naive(self) -> Array:
        """Mean of all ratings, with one rating of ``NEWCOMER`` before them; of each specialist."""
        return _mean(self._sum_UN, self._count_UN)

    def decayed(self) -> Array:
        """The same, older ratings counting less."""
        return _mean(self._late_UN, self._weight_UN)

    def diverse(self) -> Array:
        """The highest score that more than a third of all users stand behind; of each specialist."""
        spoken_UN = self._weight_UN > 1e-3
        voice_UN = np.where(spoken_UN, self._late_UN / np.maximum(self._weight_UN, 1e-12), NEWCOMER)
        users = len(voice_UN)
        # of users in falling order, the first that has more than a third up to and with it
        place = int(users * BACKING)
        falling_UN = -np.sort(-voice_UN, axis=0)
        return np.asarray(falling_UN[min(place, users - 1)])


def shares(base_N: Array, reputation_N: Array, alpha: float = ALPHA) -> Array:
    """The part of all requests that each specialist gets; sums to 1.

    Raises ``BadRating`` when no weight is positive, or one is negative or not finite.
    """
    weight_N = base_N * reputation_N**alpha
    total = weight_N.sum()
    if not np.all(np.isfinite(weight_N)) or np.any(weight_N < 0) or not total > 0:
        raise BadRating("Weights of specialists must be finite and one of them positive; check both.")
    return np.asarray(weight_N / total)


def _mean(sum_UN: Array, count_UN: Array) -> Array:
    return np.asarray((sum_UN.sum(axis=0) + NEWCOMER) / (count_UN.sum(axis=0) + 1))
