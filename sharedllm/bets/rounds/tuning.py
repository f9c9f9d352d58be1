"""Every setting's own learning rate: tried in steps of two on validation text until the best is inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sharedllm.errors import BadRecipe

__all__ = ["Tuned", "tuned"]

_FACTOR = 2.0


@dataclass(frozen=True)
class Tuned:
    """The rate with the least validation loss of those tried, ``nats`` by rate, infinite where it diverged.

    ``at_edge``: the trials ran out before the best had a worse one on both sides.
    """

    lr: float
    nats: Mapping[float, float]
    at_edge: bool

    @property
    def least_nats(self) -> float:
        return self.nats[self.lr]


def tuned(validation_nats: Callable[[float], float], centre: float, most: int) -> Tuned:
    """Try ``centre``, half and twice of it, and go on while the best is outermost; at most ``most`` runs.

    Of equal losses the smaller rate is better, and where all diverge the search goes down. Raises
    ``BadRecipe`` for fewer than three trials.
    """
    if most < 3:
        raise BadRecipe(f"A rate is not tuned in {most} runs; allow at least 3.")
    nats: dict[int, float] = {}

    def attempt(at: int) -> None:
        loss = validation_nats(_rate(centre, at))
        nats[at] = loss if math.isfinite(loss) else math.inf

    for at in (0, -1, 1):
        attempt(at)
    while len(nats) < most and (beyond := _beyond(nats)) is not None:
        attempt(beyond)
    best = min(nats, key=lambda at: (nats[at], at))
    return Tuned(
        _rate(centre, best), {_rate(centre, at): nats[at] for at in sorted(nats)}, _beyond(nats) is not None
    )


def _rate(centre: float, at: int) -> float:
    return float(f"{centre * _FACTOR**at:.6g}")


def _beyond(nats: dict[int, float]) -> int | None:
    best = min(nats, key=lambda at: (nats[at], at))
    return {min(nats): best - 1, max(nats): best + 1}.get(best)
