"""What is true of a mixture on every token and every text, as slack: how far each inequality is from failing.

With ``a_i = log p_i(x_t)``, weights w that sum to one, ``m`` the mixture's log-probability, all in nats:

1. ``m ≤ max_i a_i`` over specialists of positive weight (for the uniform mixture: over all).
2. ``m ≥ max_i (a_i + ln w_i)``; uniform: ``m ≥ max_i a_i − ln N``.
3. ``m ≥ Σ_i w_i a_i`` (Jensen); uniform: ``m ≥ mean_i a_i``.
4. ``Σ_v exp m(v) = 1``.
5. Bayes, whole text: ``L ≤ min_i (L_i − ln w_i)`` = best + ln N, with equality to ``−ln Σ_i w_i exp(−L_i)``.
6. Fixed share, whole text: ``L ≤ best sequence with k switches + fixed_share_price(k)``, for every k.
7. Power mean of order r ∈ [0, 1]: ``m ≥ Σ_i w_i a_i``, and for r > 0 ``m ≥ max_i (a_i + ln(w_i)/r)``, because
   the means grow with r and the mean of order 1 sums to one. It may exceed ``max_i a_i``: 1 does not hold.

What pruning costs is in ``pruning``.

*Covered*: these, deterministically, for any specialists over one vocabulary. *Not covered*: a comparison with
the best single specialist beyond 5 and 6. On a given text a mixture can lose to it, on one token it can't
beat the best one.

**Rounding.** The sides are computed in fp64 from the very ``a`` that was mixed, so a slack below zero is the
rounding of ``m`` alone: half an ulp at its size, plus a few ulps at the size of ln N. In fp32 that stays
under 2e-6 for log-probabilities down to −32 nats, in fp64 under 1e-12 down to −1,000. Farther out an ulp
itself is larger (1e-3 at −1e4 in fp32), so ``tolerance`` grows with the size. Source: Cesa-Bianchi & Lugosi
2006; Herbster & Warmuth 1998 (fixed share); bet b004.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedllm.combiner.mixture import check_log_probabilities, mixture, token_log_probabilities
from sharedllm.combiner.product import power_mean
from sharedllm.errors import BadMixture

__all__ = [
    "PowerSlack",
    "SequenceSlack",
    "Slack",
    "best_switching",
    "fixed_share_price",
    "fixed_share_slack",
    "gap",
    "power_slack",
    "sequence_slack",
    "token_slack",
    "tolerance",
]

FLOOR_NATS = {torch.float32: 2e-6, torch.float64: 1e-12}
_CHUNK_ELEMENTS = 1 << 24  # of N × T × V at a time: 64 MiB in fp32


@dataclass(frozen=True)
class Slack:
    """Per token and inequality, how far it is from failing (nats, fp64); negative is a violation or rounding.

    ``sums_to_one_T`` is ``−|logsumexp_v m(v)|``, so that for all four larger is better; None without
    vocabulary.
    """

    below_best_T: Tensor
    above_best_share_T: Tensor
    above_mean_T: Tensor
    sums_to_one_T: Tensor | None

    def minimum(self) -> dict[str, float]:
        """Give the least slack over tokens, by inequality, in nats."""
        slacks = {
            "below_best_nats": self.below_best_T,
            "above_best_share_nats": self.above_best_share_T,
            "above_mean_nats": self.above_mean_T,
            "sums_to_one_nats": self.sums_to_one_T,
        }
        return {name: float(slack_T.min()) for name, slack_T in slacks.items() if slack_T is not None}


@dataclass(frozen=True)
class SequenceSlack:
    """The Bayes mixture over a whole text: its loss, the specialists', the slack of 5 and its identity's
    residual."""

    total_nats: float
    specialists_nats: tuple[float, ...]
    within_best_nats: float
    identity_residual_nats: float


@dataclass(frozen=True)
class PowerSlack:
    """Per token, how far a power mean is from failing 7 and 4 (nats, fp64); no share floor at r = 0."""

    above_best_share_T: Tensor | None
    above_mean_T: Tensor
    sums_to_one_T: Tensor

    def minimum(self) -> dict[str, float]:
        """Give the least slack over tokens, by inequality, in nats."""
        slacks = {
            "above_best_share_nats": self.above_best_share_T,
            "above_mean_nats": self.above_mean_T,
            "sums_to_one_nats": self.sums_to_one_T,
        }
        return {name: float(slack_T.min()) for name, slack_T in slacks.items() if slack_T is not None}


def tolerance(dtype: torch.dtype, largest_nats: float) -> float:
    """Say how negative rounding alone may make a slack, for log-probabilities up to ``largest_nats``."""
    return max(FLOOR_NATS[dtype], 4 * torch.finfo(dtype).eps * abs(largest_nats))


def token_slack(logp: Tensor, logw: Tensor, tokens_T: Tensor | None = None) -> Slack:
    """Mix ``a_NT``, or ``logp_NTV`` with the tokens that came, and measure inequalities 1 to 4 on each token.

    The mixture is computed in ``logp``'s precision, in pieces of bounded memory. Raises ``BadMixture`` for
    NaN, for weights that don't fit, and for a vocabulary without tokens (or the reverse).
    """
    if (logp.ndim == 3) != (tokens_T is not None):
        raise BadMixture("Give logp_NTV together with tokens_T, or a_NT alone.")
    logw_NT = logw[:, None].expand(-1, logp.shape[1]) if logw.ndim == 1 else logw
    if tokens_T is None:
        return _slack(logp, logw_NT, mixture(logp, logw_NT), None)
    rows = max(1, _CHUNK_ELEMENTS // (logp.shape[0] * logp.shape[2]))
    m_T, sums_T = [], []
    for start in range(0, logp.shape[1], rows):
        cut = slice(start, start + rows)
        m_TV = mixture(logp[:, cut], logw_NT[:, cut])
        m_T.append(m_TV.gather(1, tokens_T[cut, None]).squeeze(1))
        sums_T.append(-m_TV.to(torch.float64).logsumexp(1).abs())
    return _slack(token_log_probabilities(logp, tokens_T), logw_NT, torch.cat(m_T), torch.cat(sums_T))


def _slack(a_NT: Tensor, logw_NT: Tensor, m_T: Tensor, sums_T: Tensor | None) -> Slack:
    a_NT, m_T = check_log_probabilities(a_NT), m_T.to(torch.float64)
    w_NT = logw_NT.to(torch.float64).exp()
    # a weight that is too small for a number still counts where its specialist alone knows the token
    best_T = a_NT.masked_fill(logw_NT == -torch.inf, -torch.inf).amax(0)
    share_T = (a_NT + logw_NT).amax(0)
    mean_T = torch.where(w_NT == 0, 0.0, w_NT * a_NT).sum(0)
    return Slack(gap(best_T, m_T), gap(m_T, share_T), gap(m_T, mean_T), sums_T)


def power_slack(logp_NTV: Tensor, logw_NT: Tensor, r: float, tokens_T: Tensor) -> PowerSlack:
    """Take the power mean of order r and measure inequalities 7 and 4 on each token, in ``logp``'s precision.

    Raises ``BadMixture`` as ``power_mean`` does.
    """
    m_TV = power_mean(logp_NTV, r, logw_NT)
    a_NT = token_log_probabilities(logp_NTV, tokens_T).to(torch.float64)
    logw_NT = logw_NT.to(torch.float64)
    m_T = m_TV.gather(1, tokens_T[:, None]).squeeze(1).to(torch.float64)
    w_NT = logw_NT.exp()
    return PowerSlack(
        gap(m_T, (a_NT + logw_NT / r).amax(0)) if r > 0 else None,
        gap(m_T, torch.where(w_NT == 0, 0.0, w_NT * a_NT).sum(0)),
        -m_TV.to(torch.float64).logsumexp(1).abs(),
    )


def gap(high_T: Tensor, low_T: Tensor) -> Tensor:
    """Subtract two sides of an inequality; −inf on both (a token all call impossible) is equality."""
    return torch.where(high_T == low_T, 0.0, high_T - low_T)


def sequence_slack(a_NT: Tensor, logw_NT: Tensor) -> SequenceSlack:
    """Measure inequality 5 for Bayes weights ``logw_NT`` (from ``Bayes.run``) on one text, in fp64.

    Raises ``BadMixture`` for NaN or weights that don't fit.
    """
    a_NT, logw_NT = check_log_probabilities(a_NT), logw_NT.to(torch.float64)
    total_nats = -float(mixture(a_NT, logw_NT).sum())
    losses_N = -a_NT.sum(1)
    return SequenceSlack(
        total_nats=total_nats,
        specialists_nats=tuple(losses_N.tolist()),
        within_best_nats=float((losses_N - logw_NT[:, 0]).min()) - total_nats,
        identity_residual_nats=total_nats + float((logw_NT[:, 0] - losses_N).logsumexp(0)),
    )


def fixed_share_price(n: int, tokens: int, alpha: float, switches: int) -> float:
    """Price in nats of following the best sequence with k switches, over that sequence's own loss.

    ``ln N + k ln((N−1)/α) + (T−1−k) ln(1/(1−α))``, for a uniform prior; infinite where α = 0 meets k > 0. At
    ``α = k/(T−1)`` this is Herbster & Warmuth's ``ln N + k ln(N−1) + (T−1)·H(k/(T−1))``.
    """
    if n == 1:
        return 0.0
    changes = switches * (math.log(n - 1) - math.log(alpha)) if alpha else (math.inf if switches else 0.0)
    return math.log(n) + changes - (tokens - 1 - switches) * math.log1p(-alpha)


def best_switching(a_NT: Tensor, most: int) -> Tensor:
    """Give the least loss (nats) of a sequence of specialists with at most k switches, for k = 0 … most.

    Exact, by dynamic programming in O(T · N · most). Raises ``BadMixture`` for NaN or for no token.
    """
    a_NT = check_log_probabilities(a_NT)
    if a_NT.shape[1] == 0:
        raise BadMixture("A sequence without tokens has no best specialist; give at least one token.")
    score_KN = a_NT[:, 0].expand(most + 1, -1)
    for a_N in a_NT[:, 1:].unbind(1):
        switched_KN = torch.full_like(score_KN, -torch.inf)
        switched_KN[1:] = score_KN[:-1].amax(1, keepdim=True)
        score_KN = torch.maximum(score_KN, switched_KN) + a_N
    return -score_KN.amax(1)


def fixed_share_slack(a_NT: Tensor, logw_NT: Tensor, alpha: float, most: int) -> Tensor:
    """Measure inequality 6 on one text, for k = 0 … most switches: best_k + price_k − loss, nats, fp64.

    ``logw_NT`` is what ``FixedShare(n, alpha).run`` gave. Raises ``BadMixture`` as ``best_switching`` does.
    """
    n, tokens = a_NT.shape
    most = min(most, tokens - 1)
    best_K = best_switching(a_NT, most)
    prices_K = [fixed_share_price(n, tokens, alpha, k) for k in range(most + 1)]
    loss_nats = -mixture(a_NT.to(torch.float64), logw_NT.to(torch.float64)).sum()
    return best_K + torch.tensor(prices_K, dtype=torch.float64) - loss_nats
