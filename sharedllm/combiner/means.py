"""Weighted power means of probabilities, in logarithms: ``ln((Σ_i w_i p_i^r)^{1/r})`` over specialists i.

The arithmetic behind ``mixture`` (order 1) and ``product.power_mean``, which check what they are given. Terms
are summed as numbers between 0 and 1, relative to the largest specialist, so that a vocabulary of N
specialists costs one exponential per entry and few passes; only where that sum nearly vanishes is it taken
anew in logarithms, which nothing underflows.

*Covered*: log-probabilities of ±1e4 nats and −inf, weights down to zero, orders from 1 to 0. Off by a few
ulps of one (for order r ≥ 1/4 divided by r), and half an ulp at the size of the outcome: only the last
addition rounds at that size, where ``logsumexp(log w + log p)`` would three times (the fp32 slack of b004
would not bear it). *Not covered*: gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["least_sum", "log_mean"]

# below this order the mean is the geometric one to the last bit, and r times a logarithm may underflow
_NEGLIGIBLE = 1e-100
# from this order on, dividing by it magnifies what rounds at the size of one no more than fourfold
_SMALL = 0.25


def least_sum(dtype: torch.dtype) -> float:
    """Say from where on a sum of weighted probabilities has lost nothing by underflow."""
    numbers = torch.finfo(dtype)
    return numbers.tiny / numbers.eps**2


def log_mean(logp: Tensor, logw: Tensor, r: float) -> Tensor:
    """Mean of order r ∈ [0, 1] in ``logp``'s precision: ``logp_NTV`` → ``logp_TV``; not renormalised.

    ``logw_N`` or ``logw_NT``, its weights summing to one. A specialist of weight zero may say anything (at
    r = 0, where weights are exponents, one whose weight underflows, too); where another says NaN, the mean is
    NaN.
    """
    if len(logp) == 1:
        return logp[0].clone()  # whoever is alone, or alone awake, is every mean of themselves
    logw = logw.reshape(*logw.shape, *(1,) * (logp.ndim - logw.ndim))
    w = logw.exp().to(logp.dtype)
    silent = w == 0 if r < _NEGLIGIBLE else logw == -torch.inf
    if bool(silent.any()):
        logp = logp.masked_fill(silent, 0.0 if r < _NEGLIGIBLE else -torch.inf)
    if r < _NEGLIGIBLE:
        return (logp * w).sum(0)
    pivot = logp.amax(0).clamp_(min=torch.finfo(logp.dtype).min)  # −inf can't be subtracted from −inf
    scaled = (logp - pivot).mul_(r) if r < 1.0 else logp - pivot
    if r < _SMALL:
        # the sum is near one, and would round its excess away
        total, least, logarithm = scaled.expm1_().mul_(w).sum(0), -0.5, torch.log1p_
    else:
        total, least, logarithm = scaled.exp_().mul_(w).sum(0), least_sum(logp.dtype), torch.log_
    # too small: what has underflowed or cancelled may matter; negated, so that NaN counts
    small = ~(total > least) if total.numel() and not bool(total.amin() > least) else None
    log_total = logarithm(total)
    if small is not None:
        logw = logw.to(logp.dtype).expand_as(logp)[:, small]
        log_total[small] = (logp[:, small] - pivot[small]).mul_(r).add_(logw).logsumexp(0)
    return (log_total.div_(r) if r < 1.0 else log_total).add_(pivot)
