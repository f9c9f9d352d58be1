"""A linear router weighs specialists by what the model sees: ``softmax(gate · (h − mean)/scale + bias)``.

Trained with the specialists frozen, by the cross-entropy of the mixture itself, with Adam on the whole text
at once, so nothing is drawn and the same text gives the same router. It begins at the best fixed weights
(``Static.fit``, gate 0) and keeps the best step: on the text it was chosen on it loses at most what those
lose. Source: KALAVAI (arXiv 2603.22755), 500 steps; bet b004 for the inequalities of its mixture.

*Covered*: hidden states or any features, finite; evidence with zero probabilities. *Not covered*: a promise
on another text: there a router can lose to every specialist, by as much as its weights err (≤ −ln w_i).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sharedllm.combiner.mixture import check_log_probabilities
from sharedllm.combiner.weights import Static, Weights
from sharedllm.errors import BadMixture

__all__ = ["Router"]


class Router(Weights):
    """Weights from the context of the next token alone: ``look`` decides them, ``observe`` learns nothing.

    ``gate_NF`` and ``bias_N`` act on ``(context_F − mean_F) / scale_F``. ``gain_nats`` is what it gained per
    token over its start, on the text that chose it; never negative. Raises ``BadMixture`` for shapes that do
    not fit, for values that are not finite, and for scales that are not above zero.
    """

    needs_context = True

    def __init__(
        self, gate_NF: Tensor, bias_N: Tensor, mean_F: Tensor, scale_F: Tensor, gain_nats: float = 0.0
    ) -> None:
        n, features = gate_NF.shape
        if bias_N.shape != (n,) or mean_F.shape != (features,) or scale_F.shape != (features,) or n < 1:
            raise BadMixture(
                f"A router with a gate {tuple(gate_NF.shape)} needs {n} biases, and means and scales of "
                f"{features} features; got {tuple(bias_N.shape)}, {tuple(mean_F.shape)} and "
                f"{tuple(scale_F.shape)}."
            )
        finite = all(bool(x.isfinite().all()) for x in (gate_NF, bias_N, mean_F, scale_F))
        if not (finite and bool((scale_F > 0).all())):
            raise BadMixture(
                "A router's weights must be finite, and its scales above zero; fit it again, or leave it out."
            )
        self.gate_NF, self.bias_N = gate_NF.to(torch.float64), bias_N.to(torch.float64)
        self.mean_F, self.scale_F = mean_F.to(torch.float64), scale_F.to(torch.float64)
        self.gain_nats = gain_nats
        self.logw_N = self.bias_N.log_softmax(0)

    def look(self, context_F: Tensor) -> Tensor:
        """Weigh the specialists for the token that follows this context; raises ``BadMixture`` if unfit."""
        if context_F.shape != self.mean_F.shape or not bool(context_F.isfinite().all()):
            raise BadMixture(
                f"This router looks at {len(self.mean_F)} finite features, got shape "
                f"{tuple(context_F.shape)} or values that are not finite."
            )
        seen_F = (context_F.to(torch.float64) - self.mean_F) / self.scale_F
        self.logw_N = (torch.mv(self.gate_NF, seen_F) + self.bias_N).log_softmax(0)
        return self.logw_N

    @classmethod
    def fit(
        cls,
        a_NT: Tensor,
        context_TF: Tensor,
        *,
        chosen_on: tuple[Tensor, Tensor] | None = None,
        steps: int = 500,
        lr: float = 1e-2,
    ) -> Router:
        """Train on evidence and contexts of T tokens; keep the step that loses least on ``chosen_on``.

        ``chosen_on`` is other text, as (``a_NT``, ``context_TF``); by default the training text itself. A
        token that every specialist calls impossible is left out. Raises ``BadMixture`` for what does not fit.
        """
        train = _Text(a_NT, context_TF)
        mean_F, scale_F = train.moments()
        judge = train if chosen_on is None else _Text(*chosen_on)
        gate_NF = torch.zeros(len(a_NT), len(mean_F), dtype=torch.float64, requires_grad=True)
        bias_N = Static.fit(a_NT).logw_N.clamp(min=-30.0).requires_grad_()
        optimizer = torch.optim.Adam([gate_NF, bias_N], lr=lr)
        start = least = float("inf")
        best = (gate_NF.detach().clone(), bias_N.detach().clone())
        for step in range(steps + 1):
            loss = train.loss(gate_NF, bias_N, mean_F, scale_F)
            seen = loss if judge is train else judge.loss(gate_NF, bias_N, mean_F, scale_F)
            seen_nats = seen.item()
            start = seen_nats if step == 0 else start
            if seen_nats < least:
                least, best = seen_nats, (gate_NF.detach().clone(), bias_N.detach().clone())
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        return cls(*best, mean_F, scale_F, start - least)


class _Text:
    """Evidence and contexts of the tokens that say anything, in fp64."""

    def __init__(self, a_NT: Tensor, context_TF: Tensor) -> None:
        a_NT = check_log_probabilities(a_NT)
        if context_TF.ndim != 2 or len(context_TF) != a_NT.shape[1] or not bool(context_TF.isfinite().all()):
            raise BadMixture(
                f"Expected finite contexts of {a_NT.shape[1]} tokens, got shape {tuple(context_TF.shape)}."
            )
        heard_T = (a_NT > -torch.inf).any(0)
        self.a_NT, self.context_TF = a_NT[:, heard_T], context_TF[heard_T].to(torch.float64)
        if self.a_NT.shape[1] == 0:
            raise BadMixture("A router can't be fitted to a text of which no specialist predicts any token.")

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and spread of each feature; a feature that never varies keeps the scale 1."""
        scale_F = self.context_TF.std(0, correction=0)
        return self.context_TF.mean(0), torch.where(scale_F > 0, scale_F, 1.0)

    def loss(self, gate_NF: Tensor, bias_N: Tensor, mean_F: Tensor, scale_F: Tensor) -> Tensor:
        """Mean loss of the mixture, nats per token."""
        logits_NT = gate_NF @ ((self.context_TF - mean_F) / scale_F).T + bias_N[:, None]
        return -(logits_NT.log_softmax(0) + self.a_NT).logsumexp(0).mean()
