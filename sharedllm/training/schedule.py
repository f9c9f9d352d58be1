"""The learning rate rises linearly, stays, and falls linearly to zero: a function of the share of the budget
spent.

Source: the trapezoid of Zhai et al., arXiv 2106.04560 §2.3, and Hägele et al., arXiv 2405.18392.
"""

from __future__ import annotations

__all__ = ["factor"]


def factor(step: int, steps: int, warmup: float, decay: float) -> float:
    """Return the multiplier in (0, 1] for ``step`` in [0, ``steps``).

    ``warmup`` and ``decay`` are shares of the run, together at most 1. The first step already moves and the
    last one still does. Raises ``ValueError`` for a step outside the run or shares that overlap.
    """
    if not 0 <= step < steps:
        raise ValueError(f"Step {step} is outside a run of {steps} steps.")
    if warmup < 0 or decay < 0 or warmup + decay > 1:
        raise ValueError(
            f"Warm-up {warmup} and decay {decay} are shares of one run; they may add up to 1 at most."
        )
    rising = (step + 1) / (warmup * steps) if warmup else 1.0
    falling = (steps - step) / (decay * steps) if decay else 1.0
    return min(1.0, rising, falling)
