"""One simulated worker: its shard, its optimiser's own past, and what it still owes from rounding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sharedllm.model import Transformer
from sharedllm.training.data import Streams
from sharedllm.training.loop import Run, duplicate
from sharedllm.training.outer.compression import Coding
from sharedllm.training.outer.outer import put_weights, weights_of
from sharedllm.training.outer.plan import Plan
from sharedllm.training.recipe import Recipe

__all__ = ["Flipped", "Worker", "seed_of", "staff"]

_APART = 1_000_003  # between the seeds of two workers


class Flipped(Run):
    """Training that teaches the mirrored label: token V − 1 − v wherever the text has v."""

    def targets(self, tokens_BT1: Tensor) -> Tensor:
        """Return the mirror of the next token."""
        return self.model.config.vocab_size - 1 - tokens_BT1[:, 1:]


class Worker:
    """A copy of the model that trains on one shard."""

    def __init__(
        self, model: Transformer, shard: Streams, recipe: Recipe, plan: Plan, seed: int, kind: type[Run]
    ) -> None:
        self._model = duplicate(model).train()
        self._shard, self._recipe, self._seed, self._kind = shard, recipe, seed, kind
        self._plan = plan
        self.first_P = torch.empty(0)
        self.forget()

    def forget(self) -> None:
        """Lose optimiser state and residual, as a process does that starts anew."""
        self._run = self._kind(self._model, self._shard, self._recipe, self._seed)
        self.coding = Coding(self._plan.codec, self._plan.feedback)

    def work(self, weights_P: Tensor, first_step: int) -> Tensor:
        """Take the round's inner steps from ``weights_P``: the exact pseudo-gradient, in fp64.

        Raises ``BadRecipe`` when the loss is not finite.
        """
        put_weights(self._model, weights_P)
        for step in range(first_step, first_step + self._plan.inner_steps):
            self._run.step(step)
        moved_P = weights_P.double() - weights_of(self._model).double()
        if not len(self.first_P):
            self.first_P = moved_P
        return moved_P


def seed_of(seed: int, worker: int) -> int:
    """Give a worker the seed of its batches; worker 0 has the run's own."""
    return seed + _APART * worker


def staff(
    model: Transformer, shards: Sequence[Streams], recipe: Recipe, plan: Plan, seed: int, kind: type[Run]
) -> list[Worker]:
    """Make the workers of a plan, one to a shard; flippers of labels get the wrong lesson."""
    flip = set(plan.liars) if plan.attack == "label-flip" else set()
    torch.manual_seed(seed)
    return [
        Worker(model, shard, recipe, plan, seed_of(seed, w), Flipped if w in flip else kind)
        for w, shard in enumerate(shards)
    ]
