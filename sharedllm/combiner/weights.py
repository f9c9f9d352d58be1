"""Weights come from the past alone: what a specialist weighs at token t is fixed before token t is seen.

A batch, or one token at a time, with the same bits either way. ``run(a_NT)`` gives ``logw_NT``, the weights
used *before* each of T tokens, and leaves the state alone. A request that is being served keeps a state of
its own::

    state = FixedShare(n, alpha).start()
    state.carry(a_NT)                # the whole prompt in one call; gives what run gives, and moves on
    m_V = mixture(logp_NV, state.logw_N)
    logw_N = state.observe(a_N)      # what each said of the token that came -> weights for the next one

A state never changes a tensor in place: ``kept = state.start()`` costs nothing and undoes the tokens after it
(speculation, failover). All of it is fp64.

| kind | guarantee on total log loss (nats, T tokens, N specialists) | source |
|---|---|---|
| ``Uniform`` | ≤ mean of the specialists; ≤ best + T ln N | Jensen; one term of the sum |
| ``Static`` | on its own fitting text ≤ best specialist + T · ``gap_nats`` | EM on a convex problem |
| ``Bayes`` | ≤ best + ln N; equals −ln mean_i exp(−L_i) | DeSantis et al. 1988; Cesa-Bianchi & Lugosi 2006 |
| ``FixedShare`` | ≤ best sequence with k switches + ``fixed_share_price`` | Herbster & Warmuth 1998 |
| ``Router`` (``router``) | on the text that chose it ≤ ``Static`` there | its start; the best step is kept |
| ``Pruned`` (``pruning``) | as what it prunes, over tokens at which one is awake | Freund et al. 1997 |

A token that every specialist of positive weight calls impossible says nothing about which one is right: it
leaves the posterior as it was (its own loss is infinite whatever one does). Bet b004.
"""

from __future__ import annotations

import copy
import math
from typing import Self

import torch
from torch import Tensor

from sharedllm.combiner.mixture import check_log_probabilities, check_weights
from sharedllm.errors import BadMixture

__all__ = ["Bayes", "FixedShare", "Static", "Uniform", "Weights"]


class Weights:
    """Something that weighs N specialists before each token; ``logw_N`` are the weights of the next one.

    A kind says in ``after`` where the weights go from one token to the next.
    """

    logw_N: Tensor
    needs_context = False

    def start(self) -> Self:
        """Give a state of its own that begins where this one stands: what one request carries along."""
        return copy.copy(self)

    def look(self, context_F: Tensor) -> Tensor:
        """Take in what is known before the next token (a hidden state, say) and give its ``logw_N``.

        Only a router reads it; every other kind looks at the past alone.
        """
        return self.logw_N

    def observe(self, a_N: Tensor) -> Tensor:
        """Take in what each specialist said of the token that came; give the next token's ``logw_N``.

        Raises ``BadMixture`` for NaN, +inf, or another number of specialists.
        """
        self._move(self._checked(a_N[:, None])[:, 0])
        return self.logw_N

    def update(self, a_N: Tensor) -> None:
        """As ``observe``, for who does not need the answer."""
        self.observe(a_N)

    def carry(self, a_NT: Tensor, context_TF: Tensor | None = None) -> Tensor:
        """Move past T tokens; give the weights used before each, ``logw_NT``.

        ``context_TF`` is what was known before each token; a router needs it. Raises as ``observe`` does.
        """
        # rows of their own, as observe gets them: a kernel may round strided memory differently
        a_TN = self._checked(a_NT).T.contiguous()
        given = 0 if context_TF is None else len(context_TF)
        if given != len(a_TN) and (self.needs_context or context_TF is not None):
            raise BadMixture(
                f"These weights need the context before each of {len(a_TN)} tokens, got {given}."
            )
        logw_TN = torch.empty_like(a_TN)
        for t, a_N in enumerate(a_TN):
            logw_TN[t] = self.logw_N if context_TF is None else self.look(context_TF[t])
            self._move(a_N)
        return logw_TN.T

    def run(self, a_NT: Tensor, context_TF: Tensor | None = None) -> Tensor:
        """Give the weights before each token, ``logw_NT``, from the present state on, which stays."""
        return self.start().carry(a_NT, context_TF)

    def _checked(self, a_NT: Tensor) -> Tensor:
        a_NT = check_log_probabilities(a_NT)
        n = len(self.logw_N)
        if a_NT.shape[0] != n:
            raise BadMixture(
                f"These weights are for {n} specialists, the log-probabilities for {a_NT.shape[0]}."
            )
        return a_NT

    def _move(self, a_N: Tensor) -> None:
        self.logw_N = self.after(self.logw_N, a_N)

    def after(self, logw_N: Tensor, a_N: Tensor) -> Tensor:
        """Give the weights after a token that found ``logw_N``; unchanged for kinds that learn nothing."""
        return logw_N


def _uniform(n: int) -> Tensor:
    if n < 1:
        raise BadMixture(f"A mixture needs at least one specialist, got {n}.")
    return torch.full((n,), -math.log(n), dtype=torch.float64)


def _given(logw_N: Tensor) -> Tensor:
    """Weights of any precision in fp64, in which they sum to one again: at 1e4 nats a rest of 1e-8 counts."""
    check_weights(logw_N)
    return logw_N.to(torch.float64).log_softmax(0)


def _posterior(logw_N: Tensor, a_N: Tensor) -> Tensor:
    joint_N = logw_N + a_N
    total = joint_N.logsumexp(0)
    return logw_N if total == -torch.inf else joint_N - total


class Static(Weights):
    """The same weights before every token; by default given, or fitted to a text by ``Static.fit``.

    ``gap_nats`` bounds how far (nats per token) the fit is from the best fixed mixture of its text; 0 when
    given. Raises ``BadMixture`` for weights that do not sum to one.
    """

    def __init__(self, logw_N: Tensor, gap_nats: float = 0.0) -> None:
        self.logw_N = _given(logw_N)
        self.gap_nats = gap_nats

    @classmethod
    def fit(cls, a_NT: Tensor, gap_nats: float = 1e-6, steps: int = 20_000) -> Static:
        """Find the best fixed mixture of a development text by EM.

        The loss is convex in the weights, and with ``g_i = mean_t p_i/p_mix`` the distance to its optimum is
        at most ``ln max_i g_i`` nats per token (Jensen): EM stops at that certificate, or after ``steps``,
        and reports it as ``gap_nats``. Tokens that every specialist calls impossible are left out.
        """
        a_NT = check_log_probabilities(a_NT)
        a_NT = a_NT[:, (a_NT > -torch.inf).any(0)]
        n, t = a_NT.shape
        logw_N = _uniform(n)
        reached = 0.0 if t == 0 else math.inf
        for _ in range(steps if t else 0):
            joint_NT = logw_N[:, None] + a_NT
            logg_N = (a_NT - joint_NT.logsumexp(0)).logsumexp(1) - math.log(t)
            reached = max(float(logg_N.max()), 0.0)
            if reached <= gap_nats:
                break
            logw_N = (logw_N + logg_N).log_softmax(0)
        return cls(logw_N, reached)

    def carry(self, a_NT: Tensor, context_TF: Tensor | None = None) -> Tensor:
        """Give the same ``logw_N`` at each token, as ``logw_NT``."""
        a_NT = self._checked(a_NT)
        return self.logw_N[:, None].expand(-1, a_NT.shape[1])


class Uniform(Static):
    """Every specialist weighs 1/N, always: the seed's combiner."""

    def __init__(self, n: int) -> None:
        super().__init__(_uniform(n))


class FixedShare(Weights):
    """Bayes' rule, after which every specialist gives the share ``alpha`` of its weight to the others,
    evenly.

    ``w'_i = (1 − α) v_i + α (1 − v_i)/(N − 1)`` with posterior v, so no specialist is ever lost: the combiner
    follows a document that changes its subject. ``0 ≤ alpha ≤ (N−1)/N``; at 0 this is Bayes, at (N−1)/N it is
    uniform. Raises ``BadMixture`` for another alpha or a prior that does not sum to one. Source: Herbster &
    Warmuth 1998.
    """

    def __init__(self, n: int, alpha: float, prior_logw_N: Tensor | None = None) -> None:
        prior_logw_N = _uniform(n) if prior_logw_N is None else _given(prior_logw_N)
        if prior_logw_N.shape != (n,):
            raise BadMixture(
                f"A prior for {n} specialists has shape ({n},), got {tuple(prior_logw_N.shape)}."
            )
        if not (0.0 <= alpha <= (n - 1) / n or (n == 1 and 0.0 <= alpha <= 1.0)):
            raise BadMixture(
                f"The share alpha of {n} specialists lies in [0, {(n - 1) / n:.4g}], got {alpha}."
            )
        self.logw_N = prior_logw_N
        self.alpha = alpha
        # Σ v = 1 turns the rule into keep · v_i + gift, without a sum over the others.
        gift = alpha / (n - 1) if n > 1 else 0.0
        self._log_keep = math.log1p(-n * gift) if n * gift < 1.0 else -math.inf
        self._log_gift = math.log(gift) if gift else -math.inf

    def after(self, logw_N: Tensor, a_N: Tensor) -> Tensor:
        """Bayes' rule, then the share."""
        posterior_N = _posterior(logw_N, a_N)
        if self.alpha == 0.0 or len(logw_N) == 1:
            return posterior_N
        return torch.logaddexp(posterior_N + self._log_keep, torch.full_like(posterior_N, self._log_gift))


class Bayes(FixedShare):
    """The posterior over specialists given all tokens so far: ``w_{t+1,i} ∝ w_{t,i} p_i(x_t)``; no tuning.

    It settles on one specialist and stays there, so on a text that changes its subject use ``FixedShare``.
    """

    def __init__(self, n: int, prior_logw_N: Tensor | None = None) -> None:
        super().__init__(n, 0.0, prior_logw_N)
