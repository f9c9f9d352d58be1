"""Joint training of K workers in one process: every bit repeats, every token and byte is counted.

DiLoCo (arXiv 2311.08105): each worker takes H inner steps with its own optimiser on its own shard, sends its
pseudo-gradient, and all take the same outer step on the aggregate. Workers lie, leave and are cut off as the
``Plan`` says. H = 1 is data-parallel training whose gradients went through the inner optimiser.

*Covered*: one worker (or a side of one) sends nothing and loses nothing, so that K = 1 with outer rate 1 and
no momentum is plain training bit for bit; a message that no receiver may accept counts its sender as absent
and as one of the assumed liars; a side too small for its rule waits. When a cut heals, the side with more
workers keeps its weights and the other side's work is lost. *Not covered*: time (nobody waits here), real
processes (``processes``), liars that do not know what the honest sent.

``sent_bytes`` counts each message once; an all-gather among K workers carries it K − 1 times.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sharedllm.errors import BadAggregate, BadRecipe, BadUpdate
from sharedllm.model import Transformer
from sharedllm.robust import Aggregator, Clipping, aggregate, attack, check_rule
from sharedllm.store import sha256_of
from sharedllm.training.data import Streams
from sharedllm.training.loop import Run, duplicate
from sharedllm.training.outer.compression import decode, encode, random_codes
from sharedllm.training.outer.outer import Outer, put_weights, weights_of
from sharedllm.training.outer.plan import Plan
from sharedllm.training.outer.worker import Worker, staff
from sharedllm.training.recipe import Recipe

__all__ = ["Outcome", "Point", "simulate"]


@dataclass(frozen=True)
class Point:
    """Where a run stood: steps of each worker, tokens and bytes of all, validation loss in nats per token."""

    steps: int
    tokens: int
    sent_bytes: int
    validation_nats: float


@dataclass(frozen=True)
class Outcome:
    """A finished run: its curve, its last weights, and those with the least validation loss.

    ``best`` is None, and ``best_P`` where it began, when no evaluation came out finite. ``refused`` counts
    messages that no receiver accepts, ``lost_rounds`` rounds in which a side had more of them than its rule
    bears. ``diverged`` says that a loss stopped being finite, which ends a run.
    """

    points: tuple[Point, ...]
    best: Point | None
    diverged: bool
    refused: int
    lost_rounds: int
    last_P: Tensor = field(repr=False)
    best_P: Tensor = field(repr=False)


@dataclass
class _Side:
    """What workers that hear each other have in common."""

    weights_P: Tensor
    outer: Outer
    last_P: Tensor | None = None

    def stepped(self, update_P: Tensor) -> None:
        """Take the outer step."""
        self.weights_P, self.last_P = self.outer.step(self.weights_P, update_P), update_P


def simulate(
    model: Transformer,
    shards: Sequence[Streams],
    recipe: Recipe,
    plan: Plan,
    *,
    seed: int,
    validate: Callable[[Transformer], float],
    every_steps: int,
    kind: type[Run] = Run,
) -> Outcome:
    """Train from ``model``, which stays as it is, until each worker took the recipe's steps.

    ``recipe`` is one worker's: its tokens are those of a worker, its schedule ends with the last round.
    ``validate`` gives nats per token; it is asked after the first round that completes another
    ``every_steps`` steps, and after the last. ``kind`` is what an honest worker's inner training is. Raises
    ``BadRecipe`` when shards or steps do not fit the plan, ``BadAggregate`` when the rule refuses so few
    workers.
    """
    if len(shards) != plan.workers or recipe.steps % plan.inner_steps:
        raise BadRecipe(
            f"{plan.workers} workers need as many shards, not {len(shards)}; and {recipe.steps} steps must "
            f"divide into rounds of {plan.inner_steps}."
        )
    check_rule(plan.rule, plan.workers, plan.assumed_liars)
    return _Simulation(model, shards, recipe, plan, seed, kind).run(validate, every_steps)


class _Simulation:
    """The workers, who shares whose weights, and the counts."""

    def __init__(
        self,
        model: Transformer,
        shards: Sequence[Streams],
        recipe: Recipe,
        plan: Plan,
        seed: int,
        kind: type[Run],
    ) -> None:
        self.plan, self.recipe = plan, recipe
        self.workers = staff(model, shards, recipe, plan, seed, kind)
        self.judged = duplicate(model).eval()
        side = _Side(weights_of(model), Outer(plan.outer_lr, plan.outer_momentum))
        self.sides: dict[int, _Side] = dict.fromkeys(range(plan.workers), side)
        self.leading = side
        draw = int(sha256_of(["liars and levels", seed])[:15], 16)
        self.chance, self.levels = torch.Generator().manual_seed(draw), np.random.default_rng(draw)
        self.tokens = self.sent_bytes = self.refused = self.lost_rounds = 0

    def run(self, validate: Callable[[Transformer], float], every_steps: int) -> Outcome:
        points: list[Point] = []
        best, best_P, diverged = None, self.leading.weights_P, False
        for round_ in range(self.recipe.steps // self.plan.inner_steps):
            before, steps = round_ * self.plan.inner_steps, (round_ + 1) * self.plan.inner_steps
            try:
                self._round(round_)
            except BadRecipe:
                diverged = True
                break
            if steps // every_steps == before // every_steps and steps != self.recipe.steps:
                continue
            put_weights(self.judged, self.leading.weights_P)
            point = Point(steps, self.tokens, self.sent_bytes, validate(self.judged))
            points.append(point)
            if np.isfinite(point.validation_nats) and (
                best is None or point.validation_nats < best.validation_nats
            ):
                best, best_P = point, self.leading.weights_P
        return Outcome(
            tuple(points), best, diverged, self.refused, self.lost_rounds, self.leading.weights_P, best_P
        )

    def _round(self, round_: int) -> None:
        groups = self.plan.groups(round_)
        began: list[_Side] = []
        for group in groups:
            side = self._common(group)
            if any(side is other for other in began):  # a cut begins: both sides go on from here
                side = dataclasses.replace(side, outer=dataclasses.replace(side.outer))
            began.append(side)
        there = {w: side for group, side in zip(groups, began, strict=True) for w in group}
        for worker in there:
            if worker not in self.sides:
                self.workers[worker].forget()
        self.sides = there
        for group, side in zip(groups, began, strict=True):
            self._step(group, side, round_ * self.plan.inner_steps)
        if began:
            self.leading = began[max(range(len(groups)), key=lambda i: (len(groups[i]), -groups[i][0]))]

    def _common(self, group: Sequence[int]) -> _Side:
        """Find whose weights a group goes on with: most of its members', or the leading side's."""
        held = [self.sides[w] for w in group if w in self.sides]
        counts = Counter(id(side) for side in held)
        return max(held, key=lambda side: counts[id(side)], default=self.leading)

    def _step(self, group: Sequence[int], side: _Side, first_step: int) -> None:
        """Let a group work, lie, send, hear and step along the aggregate."""
        if _too_small(self.plan, len(group)):
            return
        self.tokens += len(group) * self.plan.inner_steps * self.recipe.tokens_per_step
        exact_KP = {w: self.workers[w].work(side.weights_P, first_step) for w in group}
        if len(group) == 1:
            side.stepped(exact_KP[group[0]])
            return
        said_KP = {w: moved_P.float() for w, moved_P in exact_KP.items()}
        rule = functools.partial(self._aggregate, side)
        self._lie(said_KP, rule)
        try:
            side.stepped(rule(torch.stack([self._heard(self.workers[w], said_KP[w]) for w in group])))
        except BadAggregate:
            self.lost_rounds += 1

    def _aggregate(self, side: _Side, vectors_KP: Tensor) -> Tensor:
        return aggregate(
            vectors_KP,
            self.plan.rule,
            self.plan.assumed_liars,
            generator=self.chance,
            clipping=Clipping(centre_P=side.last_P),
        )

    def _lie(self, said_KP: dict[int, Tensor], rule: Aggregator) -> None:
        """Put lies in place of what the liars among these workers would have said."""
        liars = [w for w in said_KP if w in self.plan.liars]
        honest = [said_P for w, said_P in said_KP.items() if w not in liars]
        if not liars or not honest or self.plan.attack == "label-flip":
            return
        if self.plan.attack == "stale":
            said_KP |= {w: self.workers[w].first_P.float() for w in liars}
            return
        lies_FP = attack(self.plan.attack, torch.stack(honest), len(liars), generator=self.chance, rule=rule)
        said_KP |= dict(zip(liars, lies_FP, strict=True))

    def _heard(self, worker: Worker, said_P: Tensor) -> Tensor:
        """Send one worker's vector; NaN where no receiver may accept the message."""
        try:
            message = encode(said_P, worker.coding)
            if self.plan.levels == "random":
                message = random_codes(message, self.levels)
            heard_P = decode(message, len(said_P))
        except BadUpdate:
            self.refused += 1
            return torch.full_like(said_P, math.nan)
        self.sent_bytes += len(message)
        return heard_P


def _too_small(plan: Plan, workers: int) -> bool:
    try:
        check_rule(plan.rule, workers, plan.assumed_liars)
    except BadAggregate:
        return True
    return False
