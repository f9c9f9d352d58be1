"""Every learning rate begins, the best goes on: the search costs a part of a fit, not several.

Each rate makes the first sixth of the steps on the same windows and is judged on validation text. The best
goes on where it stands; a rate beyond is tried while the best is at the edge. From then on validation decides
which step is kept, the base (step 0) included, and ends a fit that gets worse twice in a row. What this
leaves out of a full sweep: a rate that starts slowly and ends well.

The floor, in multiplications and additions of a model of P weights in products: 2P per token forward and 2P
for the gradient of the hidden states; frozen weights need no gradient (2P more). At SmolLM2-135M that is 0.54
GFLOP per token. ``frozen`` says how close a step comes to it.

Warm-up, then constant, then linearly to zero over the second half (Hägele et al. 2405.18392: as good as a
cosine, and its first part does not depend on the length). Otherwise the recipe of ``fit``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sharedllm.adapters.fit import Budget, batches, spread
from sharedllm.adapters.personal.courses import Branch, Course, course
from sharedllm.adapters.personal.meter import Meter
from sharedllm.adapters.sweep import CENTRES
from sharedllm.model.transformer import Transformer

__all__ = ["Plan", "Search", "Trial", "search"]

_STEP = math.sqrt(10.0)
_MOST_RATES = 5
_PATIENCE = 2
_MARKS = (0.4, 0.7, 1.0)  # of the steps: when validation is looked at, after the first sixth


@dataclass(frozen=True)
class Plan:
    """What a personal fit may spend; a step is one window of ``window`` tokens.

    ``passes`` over the training text, but at least ``least_steps`` and at most ``most_steps``. At most so
    many tokens of the other two parts are scored, spread evenly.
    """

    window: int = 256
    passes: float = 1.5
    least_steps: int = 32
    most_steps: int = 160
    validation_tokens: int = 1024
    test_tokens: int = 4096

    def steps(self, tokens: int) -> int:
        """Say how many steps are made on a text of ``tokens``."""
        wanted = round(self.passes * tokens / self.window)
        return min(self.most_steps, max(self.least_steps, wanted))


@dataclass(frozen=True)
class Trial:
    """A learning rate and its validation loss (nats) after the first sixth; infinite where it diverged."""

    lr: float
    nats: float


@dataclass(frozen=True)
class Search:
    """The adapter that was kept; ``validation_nats`` is (step, loss) on the way, step 0 being the base."""

    tensors: dict[str, Tensor] = field(repr=False)
    lr: float
    trials: tuple[Trial, ...]
    validation_nats: tuple[tuple[int, float], ...]
    best_step: int
    steps: int


def work(plan: Plan, train_tokens: int, validation_tokens: int) -> int:
    """Count what a search of three rates takes, in trained tokens; a forward alone is half of one."""
    steps = plan.steps(train_tokens)
    trained = plan.window * (steps + 2 * _probe(steps))
    return trained + (4 + len(_MARKS)) * min(validation_tokens, plan.validation_tokens) // 2


def search(
    base: Transformer, train_T: Tensor, held_T: Tensor, method: str, seed: int, plan: Plan, meter: Meter
) -> Search:
    """Find the learning rate and fit one adapter. The base is left as it was.

    Either text is longer than a window, as ``enough.parts`` gives them.
    """
    budget = Budget(plan.window, 1, plan.window, validation=max(plan.window, plan.validation_tokens))
    held_BT, steps = spread(held_T, budget), plan.steps(len(train_T))
    searcher = _Searcher(course(base, method, seed), CENTRES[method], steps, held_BT, meter)
    return searcher.run(batches(train_T, budget, seed))


@dataclass
class _Searcher:
    """What all branches share."""

    course: Course[Any]
    centre: float
    steps: int
    held_BT: Tensor
    meter: Meter
    trials: dict[int, Trial] = field(default_factory=dict)

    def run(self, dealt: Iterator[Tensor]) -> Search:
        first = [window_T for (window_T,) in itertools.islice(dealt, _probe(self.steps))]
        branch = self._begin(0)
        kept, curve = self.course.delta(branch), [(0, self._loss(branch))]
        for group in self._rates():
            rivals = {at: self._begin(at) for at in group}
            self._try(rivals, first)
            branch = rivals.get(self._leader(), branch)
            del rivals  # a full twin is large
        kept = self._go_on(branch, dealt, kept, curve)
        trials = tuple(self.trials[at] for at in sorted(self.trials))
        best_step = min(curve, key=lambda mark: mark[1])[0]
        return Search(kept, branch.lr, trials, tuple(curve), best_step, self.steps)

    def _begin(self, at: int) -> Branch:
        branch: Branch = self.course.begin(float(f"{self.centre * _STEP**at:.6g}"), self.steps)
        return branch

    def _leader(self) -> int:
        """Name the best rate so far; of equal ones that which was tried first."""
        return min(self.trials, key=lambda at: self.trials[at].nats)

    def _rates(self) -> Iterator[tuple[int, ...]]:
        """Give which rates to try next: the centre and its neighbours, then past the edge."""
        start, at_once = (0, -1, 1), self.course.at_once
        yield from (start[i : i + at_once] for i in range(0, len(start), at_once))
        while len(self.trials) < _MOST_RATES:
            best = min(self.trials, key=lambda at: (self.trials[at].nats, at))
            if min(self.trials) < best < max(self.trials):
                return
            self.meter.extend((self.held_BT.shape[1] - 1) * _probe(self.steps) + self.held_BT.numel() // 2)
            yield (best - 1 if best == min(self.trials) else best + 1,)

    def _try(self, rivals: dict[int, Branch], first: list[Tensor]) -> None:
        going = rivals
        for window_T in first:
            said = ", ".join(f"{rival.lr:.1e}" for rival in going.values())
            able = self._learn(list(going.values()), window_T, f"trying rate {said}")
            going = {at: rival for (at, rival), can in zip(going.items(), able, strict=True) if can}
            if not going:
                break
        for at, rival in rivals.items():
            nats = self._loss(rival) if at in going else math.inf
            self.trials[at] = Trial(rival.lr, nats if math.isfinite(nats) else math.inf)

    def _learn(self, branches: list[Branch], window_T: Tensor, doing: str) -> list[bool]:
        going: list[bool] = self.course.learn(branches, window_T)
        nats = min(branch.nats[-1] for branch in branches)
        self.meter.add(len(branches) * (len(window_T) - 1), f"{doing}, {nats:.2f} nats")
        return going

    def _loss(self, branch: Branch) -> float:
        nats = self.course.loss(branch, self.held_BT)
        self.meter.add(self.held_BT.numel() // 2, f"validation, {nats:.2f} nats")
        return nats

    def _go_on(
        self,
        branch: Branch,
        dealt: Iterator[Tensor],
        kept: dict[str, Tensor],
        curve: list[tuple[int, float]],
    ) -> dict[str, Tensor]:
        """Learn on from where the branch stands; return the adapter of the least loss on ``curve``."""
        marks, worse = {max(1, round(share * self.steps)) for share in _MARKS}, 0
        nats, least = min(trial.nats for trial in self.trials.values()), curve[0][1]
        while math.isfinite(nats):
            curve.append((len(branch.nats), nats))
            worse += 1
            if nats < least:
                kept, least, worse = self.course.delta(branch), nats, 0
            mark = min((m for m in marks if m > len(branch.nats)), default=0)
            if worse >= _PATIENCE or not mark:
                break
            windows = itertools.islice(dealt, mark - len(branch.nats))
            doing = f"learning at {branch.lr:.1e}"
            going = all(self._learn([branch], window_T, doing)[0] for (window_T,) in windows)
            nats = self._loss(branch) if going else math.inf
        return kept


def _probe(steps: int) -> int:
    return max(2, steps // 6)
