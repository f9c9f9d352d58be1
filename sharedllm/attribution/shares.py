"""A token's probability splits exactly among specialists, and its log-probability into evidence, prior and
diversity.

With ``r_i = w_i p_i / p_mix`` (the responsibilities, a specialist's posterior share of the token):

``log p_mix = Σ_i r_i log p_i  +  Σ_i r_i log w_i  +  H(r)``      (evidence + prior + diversity; ``H(r) = −Σ
r_i log r_i``)

an identity for every r that sums to one in this way, since each ``log w_i + log p_i − log r_i`` is ``log
p_mix``. Terms with ``r_i = 0`` are zero, also where ``log p_i`` or ``log w_i`` is −inf. Source: the Bayes
update; bet b018.

*Covered*: the shares are exact in real arithmetic, and in fp64 to a few ulps. *Not covered*: cause. A
responsibility says how much of the probability came through a specialist, not what in its training or its
layers produced it, and two specialists that agree share a token by their weights alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sharedllm.errors import BadLedger

__all__ = ["LogShares", "log_shares", "responsibilities"]


@dataclass(frozen=True)
class LogShares:
    """The lines that add up to each token's log-probability, in nats (fp64)."""

    responsibility_NT: Tensor
    evidence_NT: Tensor
    prior_NT: Tensor
    diversity_T: Tensor

    def total(self) -> Tensor:
        """Add all lines of each token, ``total_T``."""
        return self.evidence_NT.sum(0) + self.prior_NT.sum(0) + self.diversity_T


def responsibilities(a_NT: Tensor, logw_NT: Tensor) -> Tensor:
    """Give each specialist's posterior share ``r_NT`` of each token, fp64; shares of a token sum to one.

    ``a_NT`` are the specialists' log-probabilities of the tokens that came, ``logw_NT`` the weights used
    before them, in nats. Raises ``BadLedger`` for shapes that differ, for NaN, and for a token that all call
    impossible.
    """
    return _log_responsibilities(a_NT, logw_NT).exp()


def log_shares(a_NT: Tensor, logw_NT: Tensor) -> LogShares:
    """Split each token's log-probability into evidence and prior per specialist, and diversity, fp64.

    Raises ``BadLedger`` as ``responsibilities`` does.
    """
    logr_NT = _log_responsibilities(a_NT, logw_NT)
    r_NT = logr_NT.exp()
    return LogShares(
        responsibility_NT=r_NT,
        evidence_NT=_times(r_NT, a_NT),
        prior_NT=_times(r_NT, logw_NT),
        diversity_T=-_times(r_NT, logr_NT).sum(0),
    )


def _times(r_NT: Tensor, log_NT: Tensor) -> Tensor:
    return torch.where(r_NT == 0, 0.0, r_NT * log_NT.to(torch.float64))


def _log_responsibilities(a_NT: Tensor, logw_NT: Tensor) -> Tensor:
    if a_NT.ndim != 2 or a_NT.shape != logw_NT.shape or a_NT.shape[0] < 1:
        raise BadLedger(
            f"Log-probabilities {tuple(a_NT.shape)} and weights {tuple(logw_NT.shape)} must both "
            "have the shape (specialists, tokens)."
        )
    joint_NT = a_NT.to(torch.float64) + logw_NT.to(torch.float64)
    log_total_T = joint_NT.logsumexp(0)
    if not bool(log_total_T.isfinite().all()):
        at = int((~log_total_T.isfinite()).nonzero()[0])
        raise BadLedger(
            f"Token {at} has log-probability {float(log_total_T[at])} under the mixture, so no share of it "
            "is defined; leave it out, or mend the specialist that gave NaN."
        )
    return joint_NT - log_total_T
