"""Ways to combine by multiplying: some are safe against the average of the specialists, some are not.

All go over ``logp_NTV`` along the first dimension and give ``logp_TV`` in nats; only the power mean takes
weights. Against the mean of the specialists' log-probabilities at a token, the normalised power mean is never
worse exactly for r ∈ [0, 1] (arXiv 2603.04204): r = 1 is the mixture, r = 0 the geometric mean. The mixture's
second bound (``max − ln N``) becomes ``max − ln(N)/r``, and nothing at r = 0, where one specialist with
probability zero vetoes the token.

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

from sharedllm.combiner.means import log_mean
from sharedllm.combiner.mixture import check_weights
from sharedllm.errors import BadMixture

__all__ = ["geometric_mean", "power_mean", "product", "raw_sum"]


def raw_sum(logp_NTV: Tensor) -> Tensor:
    """Add the log-probabilities and leave it at that: no distribution; here to show what is warned of."""
    return logp_NTV.sum(0)


def product(logp_NTV: Tensor) -> Tensor:
    """Multiply with exponent one and renormalise: p ∝ Π_i p_i. Raises ``BadMixture`` if nothing is left."""
    return _normalised(logp_NTV.sum(0))


def geometric_mean(logp_NTV: Tensor) -> Tensor:
    """Multiply with exponent 1/N and renormalise. Raises ``BadMixture`` if specialists veto every token."""
    return _normalised(logp_NTV.mean(0))


def power_mean(logp_NTV: Tensor, r: float, logw: Tensor | None = None) -> Tensor:
    """Take the mean of order r of the probabilities, ``(Σ_i w_i p_i^r)^{1/r}``, and renormalise.

    ``logw_N`` or ``logw_NT``; uniform if none is given. Continuous down to r = 0 (the geometric mean). Raises
    ``BadMixture`` for r outside [0, 1], where the guarantee ends, for weights that do not sum to one, and
    where nothing is left.
    """
    if not 0.0 <= r <= 1.0:
        raise BadMixture(f"Power means are safe for r between 0 and 1 only, got {r}; choose r in [0, 1].")
    if logw is None:
        logw = torch.full(logp_NTV.shape[:1], -math.log(len(logp_NTV)), dtype=torch.float64)
    if logw.ndim not in (1, 2) or logw.shape != logp_NTV.shape[: logw.ndim]:
        raise BadMixture(
            f"Weights of shape {tuple(logw.shape)} do not fit log-probabilities {tuple(logp_NTV.shape)}."
        )
    check_weights(logw)
    return _normalised(log_mean(logp_NTV, logw, r))


def _normalised(logp_TV: Tensor) -> Tensor:
    log_total = logp_TV.logsumexp(-1, keepdim=True)
    if bool((log_total == -math.inf).any()):
        raise BadMixture(
            "The specialists leave no token possible: each is ruled out by one of them. "
            "Use the mixture, which has no veto."
        )
    return logp_TV.sub_(log_total)
