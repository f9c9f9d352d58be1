"""The training loop: one step, repeated until the budget is spent, checkpointed so that it resumes exactly.

*Covered*: equal model, recipe, seed and text give equal losses and weights, bit for bit, on one CPU and
thread count, whether or not the run was interrupted (a test kills it). A loss that is not finite stops the
run with a sentence; the last checkpoint stays. *Not covered*: several devices; bits on a GPU.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sharedllm.errors import BadRecipe
from sharedllm.model import Transformer
from sharedllm.store import sha256_of
from sharedllm.training import checkpoint as checkpoints
from sharedllm.training.data import Streams
from sharedllm.training.optimizer import Muon, adamw, hidden_matrices
from sharedllm.training.recipe import Recipe
from sharedllm.training.schedule import factor
from sharedllm.training.ternary import straight_through

__all__ = ["OnStep", "Report", "Run", "Step", "duplicate", "time_steps", "train"]

_UNTIMED_STEPS, _TIMED_STEPS = 2, 6


@dataclass(frozen=True)
class Step:
    """What one step did; ``seconds`` and ``tokens`` count from the start of the run, over interruptions."""

    step: int
    steps: int
    loss_nats: float
    tokens: int
    seconds: float
    tok_per_s: float

    @property
    def remaining_s(self) -> float:
        return (self.steps - self.step - 1) * self.seconds / (self.step + 1)


@dataclass(frozen=True)
class Report:
    """A finished run: training loss in nats per token at each step, tokens seen, seconds spent training."""

    losses_nats: tuple[float, ...] = field(repr=False)
    tokens: int
    seconds: float

    @property
    def tok_per_s(self) -> float:
        return self.tokens / self.seconds


OnStep = Callable[[Step], None]


def train(
    model: Transformer,
    streams: Streams,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
) -> Report:
    """Train ``model`` in place on ``streams`` until the recipe's budget is spent, resuming from
    ``checkpoint``.

    The model's device is used, with bfloat16 autocast on a GPU. Raises ``BadRecipe`` when the checkpoint
    belongs to another run or the loss is not finite, ``WriteFailed`` when the disk refuses a checkpoint.
    """
    torch.manual_seed(seed)
    run = Run(model, streams, recipe, seed)
    losses, spent_s = run.resume(checkpoint)
    model.train()
    for step in range(len(losses), recipe.steps):
        started = time.perf_counter()
        losses.append(run.step(step))
        spent_s += time.perf_counter() - started
        if on_step is not None:
            tokens = (step + 1) * recipe.tokens_per_step
            on_step(Step(step, recipe.steps, losses[-1], tokens, spent_s, tokens / spent_s))
        if checkpoint is not None and _due(step, recipe):
            run.write(checkpoint, losses, spent_s)
    model.eval()
    model.zero_grad(set_to_none=True)
    return Report(tuple(losses), recipe.steps * recipe.tokens_per_step, spent_s)


def duplicate(model: Transformer) -> Transformer:
    """Return an independent fp32 copy on the same device.

    ``copy.deepcopy`` refuses a model that has just been trained, because its last balance loss holds a graph.
    """
    same = Transformer(model.config).to(next(model.parameters()).device)
    same.load_state_dict(model.state_dict())
    return same


def time_steps(model: Transformer, streams: Streams, recipe: Recipe, clock: Callable[[], float]) -> float:
    """Return the median time of one step in the unit of ``clock``; trains ``model``, so give a copy."""
    model.train()
    run = Run(model, streams, recipe, seed=0)
    times = []
    for step in range(min(_UNTIMED_STEPS + _TIMED_STEPS, recipe.steps)):
        started = clock()
        run.step(step)
        times.append(clock() - started)
    return statistics.median(times[_UNTIMED_STEPS:] or times)


def _due(step: int, recipe: Recipe) -> bool:
    return (step + 1) % recipe.checkpoint_steps == 0 or step + 1 == recipe.steps


class Run:
    """The mutable half of a run: model, optimisers, and how they are stored and restored."""

    def __init__(self, model: Transformer, streams: Streams, recipe: Recipe, seed: int) -> None:
        self.model, self.streams, self.recipe, self.seed = model, streams, recipe, seed
        self.device = next(model.parameters()).device
        self.optimizers = _optimizers(model, recipe)
        self.start = sha256_of([sha256_of(t.cpu().numpy().tobytes()) for t in model.state_dict().values()])
        self.rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]

    def step(self, step: int) -> float:
        """Take one step and return its loss in nats per token (before the step, without the balance term)."""
        tokens = self.streams.batch(step, self.seed, self.recipe.batch, self.recipe.window).to(self.device)
        bf16 = self.device.type == "cuda" or self.recipe.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            logits_BTV = self._logits(tokens[:, :-1])
        loss = F.cross_entropy(logits_BTV.float().flatten(0, 1), self.targets(tokens).flatten())
        torch.autograd.backward(loss + self.recipe.balance * self.model.balance_loss())
        norm: Tensor = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        loss_nats = loss.item()
        if not (math.isfinite(loss_nats) and math.isfinite(norm.item())):
            raise BadRecipe(
                f"The loss at step {step} is {loss_nats} and the gradient's norm {norm.item()}: the recipe "
                f"{self.recipe.name!r} diverged. Lower its learning rate; the last checkpoint is kept."
            )
        share = factor(step, self.recipe.steps, self.recipe.warmup, self.recipe.decay)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss_nats

    def targets(self, tokens_BT1: Tensor) -> Tensor:
        """Return what the model should say at each position: the next token."""
        return tokens_BT1[:, 1:]

    def _logits(self, tokens_BT: Tensor) -> Tensor:
        if self.recipe.weights == "full":
            full_BTV: Tensor = self.model(tokens_BT)
            return full_BTV
        seen = straight_through(self.model, self.recipe.scale, self.recipe.per)
        logits_BTV: Tensor = torch.func.functional_call(self.model, seen, (tokens_BT,))
        return logits_BTV

    def identity(self) -> dict[str, Any]:
        """Everything that a checkpoint must agree on to be resumed."""
        return {
            "recipe": self.recipe.to_dict(),
            "seed": self.seed,
            "text": self.streams.sha256,
            "start": self.start,
        }

    def write(self, path: Path, losses: list[float], spent_s: float) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "losses": losses,
            "seconds": spent_s,
        }
        checkpoints.write(path, self.identity(), state)

    def resume(self, path: Path | None) -> tuple[list[float], float]:
        """Load ``path`` if it exists; return the losses so far and the seconds spent."""
        state = checkpoints.read(path, self.identity()) if path is not None else None
        if state is None:
            return [], 0.0
        self.model.load_state_dict(state["model"])
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        return list(state["losses"]), float(state["seconds"])


def _optimizers(model: Transformer, recipe: Recipe) -> list[torch.optim.Optimizer]:
    if recipe.optimizer == "adamw":
        return [adamw(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay)]
    matrices, rest = hidden_matrices(model)
    precision = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    # only the hidden matrices decay: a decayed embedding forgets the tokens that a batch happens to lack
    return [
        Muon(matrices, recipe.lr, weight_decay=recipe.weight_decay, precision=precision),
        adamw(rest, recipe.adamw_lr),
    ]
