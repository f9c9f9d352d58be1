"""Specialists that weigh less than ε sleep: nobody asks them, and what that can cost is stated here.

``δ`` is the weight that sleeps at a token (δ < N·ε), ``p`` the whole mixture, ``p'`` the one of who is awake,
renormalised; ``m``, ``m'`` their log-probabilities of the token that came. In nats, deterministically:

1. ``|p'(A) − p(A)| ≤ δ`` for every set A of tokens: a sampled token differs with probability at most δ.
2. ``m' − m ≤ −ln(1 − δ)``, and ``m' ≥ a_i + ln w_i − ln(1 − δ)`` for everyone awake: their floors only rise.
3. ``m − m' ≤ ln(1 − δ + δ e^R)``, where R is by how much the best sleeper's ``a_i`` exceeds ``m'``. Where
   every specialist's logits span at most S nats, ``R ≤ 2S`` whatever the token, and ``pruning_cost(δ, 2S)``
   bounds the loss of any token in advance.
4. Whole text, fixed share: against any sequence of specialists with k switches, summed over the tokens at
   which the specialist of the moment is *awake*, the loss exceeds theirs by at most ``fixed_share_price(k)``.

There is no bound by δ alone on ``m − m'``: a sleeper may be the only one that knew the token (3). What bounds
the harm is that sleep ends. A sleeper is scored as if it had said what the others said (the *sleeping
experts* of Freund, Schapire, Singer & Warmuth 1997, which proves 4), so its weight stays as it is, and fixed
share then adds its gift at each token: it wakes after at most ``longest_sleep`` tokens. Under Bayes, which
shares nothing, it never wakes.

*Covered*: any weights, NaN in place of what a sleeper was not asked. *Not covered*: the time a specialist
takes, when it wakes, to read what it slept through (``Course.caught_up`` counts those tokens).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedllm.combiner.bounds import gap
from sharedllm.combiner.mixture import check_log_probabilities, mixture
from sharedllm.combiner.weights import Weights
from sharedllm.errors import BadMixture

__all__ = ["Course", "Pruned", "PruningSlack", "longest_sleep", "pruning_cost", "pruning_slack"]

_FLOOR = 0.25  # of an even share


class Pruned(Weights):
    """Weights that are zero below ``floor`` (ε): ``logw_N`` is −inf for who sleeps, and sums to one.

    ``awake_N`` says who is to be asked about the next token, and ``all_logw_N`` are the weights with the
    sleepers' own. By default the floor is 1/(4N): less than a quarter of all weight ever sleeps, and where
    ``FixedShare`` shares 0.02, nobody for more than 14 tokens. Raises ``BadMixture`` for a floor outside
    [0, 1/N], above which nobody might be left.
    """

    def __init__(self, weights: Weights, floor: float | None = None) -> None:
        n = len(weights.logw_N)
        floor = _FLOOR / n if floor is None else floor
        if isinstance(weights, Pruned):
            raise BadMixture(
                "These weights are already pruned; prune the ones inside, with the larger floor."
            )
        if not 0.0 <= floor <= 1 / n:
            raise BadMixture(f"The floor of {n} specialists lies in [0, {1 / n:.4g}], got {floor}.")
        self._log_floor = math.log(floor) if floor else -math.inf
        self._weights = weights.start()
        self.needs_context = weights.needs_context
        self._settle(self._weights.logw_N)

    def look(self, context_F: Tensor) -> Tensor:
        """Let the weights look, and prune what they say."""
        looking = self._weights.start()
        looking.logw_N = self.all_logw_N
        self._settle(looking.look(context_F))
        return self.logw_N

    def _checked(self, a_NT: Tensor) -> Tensor:
        return a_NT.to(torch.float64)  # a sleeper, who was not asked, may say anything; _move checks the rest

    def _move(self, a_N: Tensor) -> None:
        self._settle(self._weights.after(self.all_logw_N, self._scored(a_N)))

    def _scored(self, a_N: Tensor) -> Tensor:
        """The evidence that is scored: a sleeper says what those awake say together."""
        asked_N = check_log_probabilities(a_N[self.awake_N][:, None])[:, 0]
        said_N = mixture(asked_N, self.logw_N[self.awake_N]).expand(len(a_N)).clone()
        said_N[self.awake_N] = asked_N
        return said_N

    def _settle(self, all_logw_N: Tensor) -> None:
        awake_N = all_logw_N >= self._log_floor
        awake_N[all_logw_N.argmax()] = True  # 1/N in rounded logarithms may miss the floor by an ulp
        self.all_logw_N, self.awake_N = all_logw_N, awake_N
        self.logw_N = all_logw_N.masked_fill(~awake_N, -torch.inf)
        if not bool(awake_N.all()):
            self.logw_N = self.logw_N.log_softmax(0)

    def course(self, a_NT: Tensor) -> Course:
        """Run over a text from the present state, which stays, and keep what the bounds are about.

        Raises ``BadMixture`` for a text without tokens, and as ``observe`` does.
        """
        if a_NT.ndim != 2 or a_NT.shape[1] == 0:
            raise BadMixture(f"A course needs a_NT with at least one token, got shape {tuple(a_NT.shape)}.")
        state, columns = self.start(), []
        for a_N in self._checked(a_NT).T.contiguous():
            columns.append((state.awake_N, state.logw_N, state.all_logw_N, state._scored(a_N)))
            state._move(a_N)
        return Course(*(torch.stack(column, 1) for column in zip(*columns, strict=True)))


@dataclass(frozen=True)
class Course:
    """A pruned run: weights of who is awake, weights of all, and the evidence that scored them.

    Inequality 4 is ``fixed_share_slack(scored_NT, all_logw_NT, alpha, most)``: those mix to what the awake
    say.
    """

    awake_NT: Tensor
    logw_NT: Tensor
    all_logw_NT: Tensor
    scored_NT: Tensor

    @property
    def asked(self) -> int:
        """Forwards that were made, of N · T; each reads a specialist's weights from memory once."""
        return int(self.awake_NT.sum())

    @property
    def never_read(self) -> int:
        """Tokens that a specialist slept through to the end: all of their compute is saved."""
        later_NT = self.awake_NT.flip(1).cummax(1).values.flip(1)
        return int((~later_NT).sum())

    @property
    def caught_up(self) -> int:
        """Tokens read late, in the forward of a waking: their memory traffic is saved, their compute not."""
        return self.awake_NT.numel() - self.asked - self.never_read


def longest_sleep(n: int, alpha: float, floor: float) -> float:
    """Say after how many tokens at most a sleeper of ``FixedShare(n, alpha)`` is awake again.

    Its weight begins at the gift ``α/(N−1)`` or above and approaches 1/N by the factor ``1 − Nα/(N−1)``; the
    answer is infinite where nothing is shared, or for ε = 1/N.
    """
    if n == 1:
        return 0.0
    gift = alpha / (n - 1)
    if floor <= gift:
        return 0.0
    keep = 1 - n * gift
    if gift == 0.0 or floor >= 1 / n:
        return math.inf
    return math.ceil(math.log((1 / n - floor) / (1 / n - gift)) / math.log(keep)) if keep > 0 else 1.0


def pruning_cost(asleep: float, ahead_nats: float) -> float:
    """Give the most nats that a token can cost if the weight ``asleep`` (δ) sleeps: ``ln(1 − δ + δ e^R)``.

    ``ahead_nats`` (R) is by how much the best sleeper may exceed those awake; infinite if it alone may know a
    token.
    """
    if asleep == 0.0:
        return 0.0
    log_shares = torch.tensor([1.0 - asleep, asleep], dtype=torch.float64).log()
    return float((log_shares + torch.tensor([0.0, ahead_nats], dtype=torch.float64)).logsumexp(0))


@dataclass(frozen=True)
class PruningSlack:
    """Per token, how far inequalities 1 to 3 are from failing (fp64; 1 in probability, the others in nats).

    ``moved_T`` is None without vocabulary.
    """

    moved_T: Tensor | None
    gained_T: Tensor
    above_awake_share_T: Tensor
    lost_T: Tensor

    def minimum(self) -> dict[str, float]:
        """Give the least slack over tokens, by inequality."""
        slacks = {
            "moved": self.moved_T,
            "gained_nats": self.gained_T,
            "above_awake_share_nats": self.above_awake_share_T,
            "lost_nats": self.lost_T,
        }
        return {name: float(slack_T.min()) for name, slack_T in slacks.items() if slack_T is not None}


def pruning_slack(
    logp: Tensor, all_logw_NT: Tensor, awake_NT: Tensor, tokens_T: Tensor | None = None
) -> PruningSlack:
    """Measure inequalities 1 to 3 on ``logp_NTV`` with the tokens that came, or 2 and 3 on ``a_NT`` alone.

    Computed in fp64. Raises ``BadMixture`` for what ``mixture`` refuses.
    """
    logp, logw_NT = logp.to(torch.float64), all_logw_NT.to(torch.float64)
    awake_logw_NT = logw_NT.masked_fill(~awake_NT, -torch.inf)
    log_rest_T = awake_logw_NT.logsumexp(0)  # ln(1 − δ)
    sleeping_T = logw_NT.masked_fill(awake_NT, -torch.inf).logsumexp(0).exp()
    whole, pruned = mixture(logp, logw_NT), mixture(logp, awake_logw_NT - log_rest_T)
    moved_T, a_NT, m_T, n_T = None, logp, whole, pruned
    if tokens_T is not None:
        moved_T = sleeping_T - 0.5 * (whole.exp() - pruned.exp()).abs().sum(1)
        a_NT = logp.gather(2, tokens_T[None, :, None].expand(len(logp), -1, 1)).squeeze(2)
        m_T, n_T = (x.gather(1, tokens_T[:, None]).squeeze(1) for x in (whole, pruned))
    best_T = a_NT.masked_fill(awake_NT | (logw_NT == -torch.inf), -torch.inf).amax(0)
    # ln((1 − δ) e^{m'} + δ e^{best sleeper}) − m', without m' where that is −inf
    ceiling_T = torch.logaddexp(log_rest_T + n_T, sleeping_T.log() + best_T)
    floor_T = (a_NT + awake_logw_NT).amax(0) - log_rest_T
    return PruningSlack(moved_T, gap(m_T - log_rest_T, n_T), gap(n_T, floor_T), gap(ceiling_T, m_T))
