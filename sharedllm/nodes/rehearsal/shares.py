"""How much of the time a worker works, step by step: what ``Worker.share`` may be set to."""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["Share", "jitter", "ramp", "steady"]

Share = Callable[[int], float]
"""The part of the time, above 0 and at most 1, for a step's number from 1."""


def steady(share: float) -> Share:
    """The same at every step."""
    return lambda step: share


def ramp(to: float, steps: int) -> Share:
    """From 1 evenly down to ``to``, which is reached after so many steps and kept."""
    return lambda step: max(to, 1 - (1 - to) * step / steps)


def jitter(least: float, seed: int) -> Share:
    """Anything from ``least`` to 1, drawn anew at every step."""
    draw = random.Random(seed)
    return lambda step: draw.uniform(least, 1)
