"""The mixture of specialists is log-mean-exp: ``m = logsumexp_i(log w_i + log p_i)``, and it is a
distribution.

Shapes: ``logp_NTV`` or ``a_NT`` (``a_i,t = log p_i(x_t)``, nats); weights ``logw_N`` (the same at each token)
or ``logw_NT``. Whoever serves has the logits of one token: ``blended`` mixes those with one exponential per
entry, in less than half the time of ``log_softmax`` and ``mixture``. Source: DESIGN §5; KALAVAI (arXiv
2603.22755) for federations; bet b004.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedllm.combiner.means import least_sum, log_mean
from sharedllm.errors import BadMixture

__all__ = [
    "Blend",
    "blended",
    "check_log_probabilities",
    "check_weights",
    "mixture",
    "token_log_probabilities",
]

# Rounded weights may miss one by this much (fp32, some hundred specialists); more is a mistake of the caller.
WEIGHT_SUM_TOLERANCE = 1e-4


def mixture(logp: Tensor, logw: Tensor) -> Tensor:
    """Mix the specialists along the first dimension: ``logp_NTV`` → ``m_TV``, or ``a_NT`` → ``m_T``, in nats.

    Computed in ``logp``'s own precision. Zero probabilities (−inf) are allowed anywhere. Where a weight is
    zero its specialist may say anything; elsewhere NaN stays NaN. Raises ``BadMixture`` when weights and
    specialists do not match or the weights do not sum to one.
    """
    if logp.ndim < 1 or logw.ndim > logp.ndim or logw.shape != logp.shape[: logw.ndim]:
        raise BadMixture(
            f"Weights of shape {tuple(logw.shape)} do not match log-probabilities of shape "
            f"{tuple(logp.shape)}; give logw_N or logw_NT for logp_NTV."
        )
    check_weights(logw)
    return log_mean(logp, logw, 1.0)


@dataclass(frozen=True, eq=False)
class Blend:
    """The mixture ``m_V`` of what specialists say of the next token, nats, fp64, and how it was made:
    ``log p_i = logits_i − z_i``."""

    m_V: Tensor
    logits: tuple[Tensor, ...]
    z_N: Tensor

    def evidence(self, token: int) -> Tensor:
        """Give ``a_N = log p_i(token)``."""
        return torch.stack([logits_V[token] for logits_V in self.logits]).to(torch.float64) - self.z_N


def blended(logits: Sequence[Tensor], logw_N: Tensor) -> Blend:
    """Mix N specialists' ``logits_V`` of one token: ``mixture`` of their log-softmax in fp64, in one pass.

    *Covered*: what ``mixture`` covers, to a few ulps of one and half an ulp at the size of the outcome; no
    bit depends on how logits lie in memory. Raises ``BadMixture`` as ``mixture`` does.
    """
    if not logits or logw_N.shape != (len(logits),):
        raise BadMixture(
            f"Weights of shape {tuple(logw_N.shape)} do not match {len(logits)} specialists' logits; give "
            "one weight for each."
        )
    check_weights(logw_N)
    logw_N = logw_N.to(torch.float64)
    total_V, z = torch.zeros_like(logits[0], dtype=torch.float64), []
    for logits_V, logw in zip(logits, logw_N, strict=True):
        pivot = logits_V.amax().to(torch.float64)
        p_V = logits_V.to(torch.float64, copy=True).sub_(pivot).exp_()
        sum_p = p_V.sum()
        z.append(pivot + sum_p.log())
        if logw > -torch.inf:  # else it may say anything
            total_V.add_(p_V, alpha=float(logw.exp() / sum_p))
    z_N = torch.stack(z)
    m_V, least = total_V.log(), least_sum(torch.float64)
    if not bool(total_V.amin() > least):
        small = ~(total_V > least)  # negated, so that NaN counts
        logp_NS = torch.stack([logits_V[small] for logits_V in logits]).to(torch.float64) - z_N[:, None]
        m_V[small] = mixture(logp_NS, logw_N)
    return Blend(m_V, tuple(logits), z_N)


def token_log_probabilities(logp_NTV: Tensor, tokens_T: Tensor) -> Tensor:
    """Pick ``a_NT = log p_i(x_t)`` out of full distributions, given the tokens that came.

    Raises ``BadMixture`` when the number of tokens differs from the number of distributions.
    """
    if logp_NTV.ndim != 3 or tokens_T.shape != logp_NTV.shape[1:2]:
        raise BadMixture(
            f"Log-probabilities of shape {tuple(logp_NTV.shape)} do not fit {tuple(tokens_T.shape)} tokens; "
            "give logp_NTV and tokens_T."
        )
    index_NT1 = tokens_T[None, :, None].expand(logp_NTV.shape[0], -1, 1)
    return logp_NTV.gather(2, index_NT1).squeeze(2)


def check_log_probabilities(a_NT: Tensor) -> Tensor:
    """Return ``a_NT`` in fp64, refusing what is no matrix of log-probabilities.

    Raises ``BadMixture`` for another number of dimensions, no specialist, NaN, or +inf.
    """
    if a_NT.ndim != 2 or a_NT.shape[0] < 1:
        raise BadMixture(f"Expected a_NT with at least one specialist, got shape {tuple(a_NT.shape)}.")
    a_NT = a_NT.to(torch.float64)
    wrong_N = (a_NT.isnan() | (a_NT == torch.inf)).any(1)
    if wrong_N.any():
        raise BadMixture(
            f"Specialist {int(wrong_N.nonzero()[0])} gives NaN or infinite log-probabilities; "
            "leave it out or mend its weights."
        )
    return a_NT


def check_weights(logw: Tensor) -> None:
    """Refuse weights that do not sum to one over specialists; raises ``BadMixture``."""
    if logw.ndim not in (1, 2) or logw.shape[0] < 1:
        raise BadMixture(f"Expected weights logw_N or logw_NT, got shape {tuple(logw.shape)}.")
    excess = logw.to(torch.float64).logsumexp(0).abs()
    if not bool((excess <= WEIGHT_SUM_TOLERANCE).all()):
        raise BadMixture(
            f"Weights must sum to one for every token; theirs sum to exp(±{float(excess.max()):.3g}). "
            "Normalise them with log_softmax over specialists."
        )
