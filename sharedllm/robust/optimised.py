"""The lie of one family that moves a known rule farthest from the honest mean, found by search.

Damage over the strength of a lie has several peaks (a lie that hides, and one that is just not cut off) and
falls off a cliff behind each, so a geometric grid looks first, and finer ones around its best follow: a climb
from one end would stop at the first peak. A vector longer than ``SAMPLE`` is tried on that many of its
numbers, drawn by chance, and the best three lies then on all; a rule that takes vectors of one length only is
always asked with all.

*Covered*: strengths of 0.05 to 100, to within 2 %. *Not covered*: lies outside the family, such as different
ones from each liar.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sharedllm.errors import BadAggregate

__all__ = ["SAMPLE", "Aggregator", "worst_lie"]

Aggregator = Callable[[Tensor], Tensor]
"""A rule as the liars know it: all vectors, honest ones first, to the aggregate."""

SAMPLE = 1 << 14
_LEAST, _MOST, _COARSE = 0.05, 100.0, 12
_FINER, _ROUNDS = 6, 3
_FINALISTS = 3


def worst_lie(
    honest_HP: Tensor,
    from_P: Tensor,
    along_P: Tensor,
    signs: tuple[float, ...],
    f: int,
    rule: Aggregator,
    generator: torch.Generator,
) -> Tensor:
    """Find the s, of one of the ``signs``, for which f liars with ``from + s · along`` do the most damage."""
    damage = _damage(honest_HP, from_P, along_P, f, rule)
    size = honest_HP.shape[1]
    if size <= SAMPLE:
        return from_P + _searched(damage, signs)[0] * along_P
    drawn = torch.randint(size, (SAMPLE,), generator=generator).to(honest_HP.device)
    try:
        best = _searched(_damage(honest_HP[:, drawn], from_P[drawn], along_P[drawn], f, rule), signs)
    except BadAggregate:
        best = _searched(damage, signs)[:1]
    return from_P + max(best, key=damage) * along_P


def _damage(
    honest_HP: Tensor, from_P: Tensor, along_P: Tensor, f: int, rule: Aggregator
) -> Callable[[float], float]:
    mean_P = honest_HP.mean(0)

    def damage(s: float) -> float:
        lies_FP = (from_P + s * along_P).expand(f, -1)
        off_P = rule(torch.cat([honest_HP, lies_FP])) - mean_P
        return float(off_P.norm())

    return damage


def _searched(damage: Callable[[float], float], signs: tuple[float, ...]) -> list[float]:
    """Give the strengths that did the most damage, the best first."""
    step = (_MOST / _LEAST) ** (1 / (_COARSE - 1))
    tried = {s: damage(s) for s in (sign * _LEAST * step**i for sign in signs for i in range(_COARSE))}
    for _ in range(_ROUNDS):
        best = max(tried, key=lambda s: tried[s])
        step = step ** (2 / (_FINER + 1))
        around = (best * step ** (i - (_FINER - 1) / 2) for i in range(_FINER))
        tried |= {s: damage(s) for s in around}
    return sorted(tried, key=lambda s: -tried[s])[:_FINALISTS]
