"""A gate before the rule: only updates that lower a held-out loss pass, however many senders lie.

Majority rules fall with the majority; a loss on text that the liars did not choose does not. In the family of
FLTrust (Cao et al. 2012.13995) and Gauntlet (2505.21684): each update is tried by itself, those that help
pass, and no one weighs more than the shortest half of those allows. What comes out is tried once more, and if
it does not help, nothing is done.

*Covered*: any number of liars; what passes the gate never raises the held-out loss. *Not covered*: a liar
whose update lowers the held-out loss and harms elsewhere (a backdoor); the price, which is one evaluation per
worker; held-out text that is too little, whose noise lets harmless lies pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sharedllm.errors import BadAggregate
from sharedllm.robust.rules import aggregate

__all__ = ["Gated", "gated"]


@dataclass(frozen=True)
class Gated:
    """What passed: the aggregate, and for each worker whether it passed and what its update gained by itself.

    ``gains_nats`` is the loss without an update minus the loss with this one (−∞ for one that is not
    finite); ``gain_nats`` that of the aggregate, zero when nothing passed.
    """

    vector_P: Tensor = field(repr=False)
    passed: tuple[bool, ...]
    gains_nats: tuple[float, ...]
    gain_nats: float


def gated(
    vectors_KP: Tensor,
    loss: Callable[[Tensor], float],
    *,
    rule: str = "mean",
    f: int = 0,
    margin_nats: float = 0.0,
) -> Gated:
    """Aggregate the updates that lower ``loss`` by more than ``margin_nats``, cut to their median length.

    ``loss(vector_P)`` is the held-out loss, in nats per token, of the model after that update. ``rule`` and
    ``f`` aggregate what passed; where too few did for them, the mean does. Raises ``BadAggregate`` for what
    is no table, or a loss that is not finite without any update.
    """
    if vectors_KP.ndim != 2 or not len(vectors_KP):
        raise BadAggregate(f"Updates of shape {tuple(vectors_KP.shape)} are no table of workers × numbers.")
    nothing_P = torch.zeros_like(vectors_KP[0])
    without = loss(nothing_P)
    if not math.isfinite(without):
        raise BadAggregate(
            f"The held-out loss before any update is {without}; the gate needs a model that works."
        )
    gains = tuple(_gain(vector_P, loss, without) for vector_P in vectors_KP)
    passed = tuple(gain > margin_nats for gain in gains)
    if not any(passed):
        return Gated(nothing_P, passed, gains, 0.0)
    kept_KP = vectors_KP[torch.tensor(passed, device=vectors_KP.device)]
    lengths_K = kept_KP.double().norm(dim=1)
    cut_K = (lengths_K.median() / lengths_K).clamp_max(1.0).to(kept_KP.dtype)
    try:
        vector_P = aggregate(kept_KP * cut_K[:, None], rule, f)
    except BadAggregate:
        vector_P = aggregate(kept_KP * cut_K[:, None], "mean", 0)
    gain = _gain(vector_P, loss, without)
    if gain <= 0.0:
        return Gated(nothing_P, passed, gains, 0.0)
    return Gated(vector_P, passed, gains, gain)


def _gain(vector_P: Tensor, loss: Callable[[Tensor], float], without: float) -> float:
    if not bool(vector_P.isfinite().all()):
        return -math.inf
    gain = without - loss(vector_P)
    return gain if math.isfinite(gain) else -math.inf
