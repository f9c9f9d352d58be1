"""Ways to combine by multiplying: some are safe against the average of the specialists, some are not.

All are unweighted, over ``logp_NTV`` along the first dimension, and give ``logp_TV`` in nats. Against the
mean of the specialists' log-probabilities at a token, the normalised power mean is never worse exactly for r
∈ [0, 1] (arXiv 2603.04204): r = 1 is the mixture, r = 0 the geometric mean. No bound of the mixture's second
kind (``max − ln N``) holds for r < 1 in general: at r = 0 one specialist with probability zero vetoes the
token.

| name | a distribution? | never below the mean of a_i? |
|---|---|---|
| ``raw_sum`` | no: its "loss" is the sum of all losses | no |
| ``product`` | yes | no: it can be worse than the worst specialist |
| ``geometric_mean`` | yes | yes: its normaliser Σ_v Π_i p_i^{1/N} ≤ 1 (AM–GM) |
| ``power_mean`` | yes | yes, r ∈ [0, 1] |

Bet b004.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sharedllm.errors import BadMixture

__all__ = ["geometric_mean", "power_mean", "product", "raw_sum"]

# below this order the mean is the geometric one to the last bit, and r times a logarithm may underflow
_NEGLIGIBLE = 1e-100


def raw_sum(logp_NTV: Tensor) -> Tensor:
    """Add the log-probabilities and leave it at that: no distribution; here to show what is warned of."""
    return logp_NTV.sum(0)


def product(logp_NTV: Tensor) -> Tensor:
    """Multiply with exponent one and renormalise: p ∝ Π_i p_i. Raises ``BadMixture`` if nothing is left."""
    return _normalised(logp_NTV.sum(0))


def geometric_mean(logp_NTV: Tensor) -> Tensor:
    """Multiply with exponent 1/N and renormalise. Raises ``BadMixture`` if specialists veto every token."""
    return _normalised(logp_NTV.mean(0))


def power_mean(logp_NTV: Tensor, r: float) -> Tensor:
    """Take the mean of order r of the probabilities, ``(mean_i p_i^r)^{1/r}``, and renormalise.

    Continuous down to r = 0 (the geometric mean). Raises ``BadMixture`` for r outside [0, 1], where the
    guarantee ends, and where nothing is left.
    """
    if not 0.0 <= r <= 1.0:
        raise BadMixture(f"Power means are safe for r between 0 and 1 only, got {r}; choose r in [0, 1].")
    if r < _NEGLIGIBLE:
        return geometric_mean(logp_NTV)
    pivot_TV = logp_NTV.amax(0)
    pivot_TV = torch.where(pivot_TV == -torch.inf, torch.zeros_like(pivot_TV), pivot_TV)
    # expm1 and log1p: at small r the mean differs from one by about r, which 1 + … would round away.
    excess_TV = ((logp_NTV - pivot_TV) * r).expm1_().mean(0)
    return _normalised(pivot_TV + excess_TV.clamp_(min=-1.0).log1p_() / r)


def _normalised(logp_TV: Tensor) -> Tensor:
    log_total = logp_TV.logsumexp(-1, keepdim=True)
    if (log_total == -math.inf).any():
        raise BadMixture(
            "The specialists leave no token possible: each is ruled out by one of them. "
            "Use the mixture, which has no veto."
        )
    return logp_TV - log_total
