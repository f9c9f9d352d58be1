"""What f colluding liars send who have seen every honest vector, and know the rule.

| attack | what each liar sends | source |
|---|---|---|
| ``scale`` | an honest vector × 1000: the easiest attack to survive | |
| ``sign-flip`` | − the honest mean | |
| ``nan``, ``inf`` | no number at all | |
| ``gaussian`` | noise of ten times the honest length | Blanchard et al. 1703.02757 |
| ``alie`` | mean + z · standard deviation, the largest z that hides | Baruch et al. 1902.06156 |
| ``ipm`` | − 0.1 × the honest mean | Xie et al. 1903.03936 |
| ``optimised-alie``, ``optimised-ipm`` | the same with the z or ε that moves this very rule farthest | |
| ``mimic`` | the honest vector that stands out most, again | Karimireddy et al. 2006.09365 |

All liars send the same vector (but for ``gaussian``). ``strength`` replaces the factor, z or ε: with
``byzfl``'s it gives ``byzfl``'s numbers. Label flipping and stale updates are made where the data is.

*Covered*: liars who know everything and act together in one round. *Not covered*: liars who remember, such as
ROP against clipping around the last aggregate (2208.09894).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

from sharedllm.errors import BadAggregate
from sharedllm.robust.optimised import Aggregator, worst_lie

__all__ = ["ATTACKS", "attack", "z_max"]

ATTACKS = (
    "scale",
    "sign-flip",
    "nan",
    "inf",
    "gaussian",
    "alie",
    "ipm",
    "optimised-alie",
    "optimised-ipm",
    "mimic",
)
_STRENGTHS = {"scale": 1000.0, "sign-flip": 1.0, "gaussian": 10.0, "ipm": 0.1}


def attack(
    name: str,
    honest_HP: Tensor,
    f: int,
    *,
    generator: torch.Generator,
    rule: Aggregator | None = None,
    strength: float | None = None,
) -> Tensor:
    """Make ``byzantine_FP`` for f liars against H honest vectors; rows may share memory.

    ``rule`` is what the optimised attacks try their vectors on. Raises ``BadAggregate`` for an unknown
    attack, no honest vector, no liar, or an optimised attack without a rule.
    """
    if name not in ATTACKS:
        raise BadAggregate(f"There is no attack {name!r}; expected one of: {', '.join(ATTACKS)}.")
    if f < 1 or honest_HP.ndim != 2 or len(honest_HP) < 1:
        raise BadAggregate(
            f"{f} liars among honest vectors of shape {tuple(honest_HP.shape)} make no attack; give at least "
            "one of each, as a table."
        )
    work_HP = honest_HP if honest_HP.dtype == torch.float64 else honest_HP.float()
    if name == "gaussian":
        factor = _STRENGTHS[name] if strength is None else strength
        size = work_HP.square().mean().sqrt()
        noise_FP = torch.randn(f, work_HP.shape[1], generator=generator, dtype=work_HP.dtype)
        return (factor * size * noise_FP.to(work_HP)).to(honest_HP.dtype)
    lie_P = _lie(name, work_HP, f, generator, rule, strength)
    return lie_P.to(honest_HP.dtype).expand(f, -1)


def z_max(workers: int, f: int) -> float:
    """Give the largest z at which enough honest vectors lie beyond the liars' (1902.06156, §3.2).

    Of the n − f honest ones ⌊n/2 + 1⌋ − f must be farther out than the liars for these to make a majority; z
    is the normal quantile that leaves so many. Zero where that is none or all of them.
    """
    honest = workers - f
    share = (honest - (workers // 2 + 1 - f)) / honest
    return max(0.0, NormalDist().inv_cdf(share)) if 0 < share < 1 else 0.0


def _lie(
    name: str,
    honest_HP: Tensor,
    f: int,
    generator: torch.Generator,
    rule: Aggregator | None,
    strength: float | None,
) -> Tensor:
    mean_P = honest_HP.mean(0)
    if name in ("nan", "inf"):
        return torch.full_like(mean_P, math.nan if name == "nan" else math.inf)
    if name == "mimic":
        return honest_HP[_outstanding(honest_HP)]
    if name in ("scale", "sign-flip", "ipm"):
        factor = _STRENGTHS[name] if strength is None else strength
        return factor * honest_HP[0] if name == "scale" else -factor * mean_P
    spread_P = honest_HP.std(0) if len(honest_HP) > 1 else torch.zeros_like(mean_P)
    if name == "alie":
        z = z_max(len(honest_HP) + f, f) if strength is None else strength
        return mean_P + z * spread_P
    if rule is None:
        raise BadAggregate(f"The attack {name} is optimised against a rule; give the rule.")
    if name == "optimised-ipm":
        return worst_lie(honest_HP, torch.zeros_like(mean_P), -mean_P, (1.0,), f, rule, generator)
    return worst_lie(honest_HP, mean_P, spread_P, (1.0, -1.0), f, rule, generator)


def _outstanding(honest_HP: Tensor) -> int:
    """Find the vector farthest out along the direction in which the honest ones differ most."""
    centred_HP = (honest_HP - honest_HP.mean(0)).double()
    values_H, vectors_HH = torch.linalg.eigh(centred_HP @ centred_HP.mT)
    return int((vectors_HH[:, -1] * values_H[-1].clamp_min(0).sqrt()).abs().argmax())
