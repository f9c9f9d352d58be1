"""Every learning rate begins, the best goes on: the search costs a part of a fit, not several.

Each rate makes the first sixth of the steps on the same windows and is judged on validation text. The best
goes on where it stands; a rate beyond is tried while the best is at the edge. From then on validation decides
which step is kept, the base (step 0) included, and ends a fit that gets worse twice in a row. What this
leaves out of a full sweep: a rate that starts slowly and ends well.

The floor, in multiplications and additions of a model of P weights in products: 2P per token forward and 2P
for the gradient of the hidden states; frozen weights need no gradient (2P more). At SmolLM2-135M that is 0.54
GFLOP per token: ``bf16`` where the processor multiplies it natively. Not with experts: each gets another
number of rows at each step, and oneDNN prepares every new shape of a bf16 product anew (the toy base learnt
30 times slower so, measured).

Warm-up, then constant, then linearly to zero over the second half (Hägele et al. 2405.18392: as good as a
cosine, and its first part does not depend on the length). Otherwise the recipe of ``fit``: AdamW, gradients
clipped to norm 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sharedllm.adapters.apply import TRAINED
from sharedllm.adapters.fit import Budget, batches, spread, window_nats
from sharedllm.adapters.personal.meter import Meter
from sharedllm.adapters.sweep import CENTRES
from sharedllm.errors import BadText
from sharedllm.model.transformer import Transformer
from sharedllm.training.optimizer import adamw

__all__ = ["Plan", "Search", "Trial", "quick_products", "search"]

_STEP = math.sqrt(10.0)
_MOST_RATES = 5
_CLIP = 1.0
_PATIENCE = 2
_ROWS = 4  # windows of one forward where nothing is learnt
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


def quick_products(model: Transformer) -> str:
    """Name the format in which this machine multiplies fastest while ``model`` learns."""
    if model.embed.weight.device.type != "cpu":
        return "bf16"
    can = torch.cpu.get_capabilities()
    native = can.get("avx512_bf16") or can.get("amx_bf16") or can.get("bf16")
    return "bf16" if native and not model.config.experts else "fp32"


def work(plan: Plan, train_tokens: int, validation_tokens: int) -> int:
    """Count what a search of three rates takes, in trained tokens; a forward alone is half of one."""
    steps = plan.steps(train_tokens)
    trained = plan.window * (steps + 2 * _probe(steps))
    return trained + (4 + len(_MARKS)) * min(validation_tokens, plan.validation_tokens) // 2


def search(
    base: Transformer, train_T: Tensor, held_T: Tensor, method: str, seed: int, plan: Plan, meter: Meter
) -> Search:
    """Find the learning rate and fit one adapter. The base is left as it was.

    Raises ``BadText`` where either text is shorter than a window.
    """
    for name, tokens_T in (("to learn from", train_T), ("to choose settings on", held_T)):
        if len(tokens_T) <= plan.window:
            raise BadText(
                f"Only {len(tokens_T)} tokens of the text are left {name}, and a window takes "
                f"{plan.window + 1}; give more text."
            )
    budget = Budget(plan.window, 1, plan.window, validation=max(plan.window, plan.validation_tokens))
    return _Searcher(base, method, seed, plan.steps(len(train_T)), spread(held_T, budget), meter).run(
        batches(train_T, budget, seed)
    )


class _Branch:
    """A twin at one learning rate, and how far it has come."""

    def __init__(self, base: Transformer, method: str, lr: float, seed: int, steps: int) -> None:
        self.precision = quick_products(base)
        self.tuned = TRAINED[method](base, seed, self.precision)
        self.lr, self.steps = lr, steps
        self.optimizer = adamw(self.tuned.parameters, lr)
        self.nats: list[float] = []

    def learn(self, windows_BT: Tensor) -> bool:
        """Make one step; False where the loss or its gradient is no number any more."""
        nats = window_nats(self.tuned.model, windows_BT, self.precision)
        nats.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.tuned.parameters, _CLIP)
        self.nats.append(nats.item())
        if not math.isfinite(self.nats[-1] + norm.item()):
            return False
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * _share(len(self.nats), self.steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return True

    @torch.no_grad()
    def loss(self, held_BT: Tensor) -> float:
        parts = torch.split(held_BT, _ROWS)
        nats = [float(window_nats(self.tuned.model, part, self.precision)) * len(part) for part in parts]
        return math.fsum(nats) / len(held_BT)


@dataclass
class _Searcher:
    """What all branches share."""

    base: Transformer
    method: str
    seed: int
    steps: int
    held_BT: Tensor
    meter: Meter
    trials: dict[int, Trial] = field(default_factory=dict)

    def run(self, dealt: Iterator[Tensor]) -> Search:
        first = list(itertools.islice(dealt, _probe(self.steps)))
        branch = self._branch(0)
        kept, curve = branch.tuned.delta(), [(0, self._loss(branch))]
        self._try(0, branch, first)
        for at in self._rates():
            rival = self._branch(at)
            self._try(at, rival, first)
            if self.trials[at].nats < min(t.nats for other, t in self.trials.items() if other != at):
                branch = rival
            del rival  # a full twin is large
        kept = self._go_on(branch, dealt, kept, curve)
        trials = tuple(self.trials[at] for at in sorted(self.trials))
        best_step = min(curve, key=lambda mark: mark[1])[0]
        return Search(kept, branch.lr, trials, tuple(curve), best_step, self.steps)

    def _branch(self, at: int) -> _Branch:
        lr = float(f"{CENTRES[self.method] * _STEP**at:.6g}")
        return _Branch(self.base, self.method, lr, self.seed, self.steps)

    def _rates(self) -> Iterator[int]:
        """Give which rate to try next: the centre's neighbours, then past the edge at which the best is."""
        yield from (-1, 1)
        while len(self.trials) < _MOST_RATES:
            best = min(self.trials, key=lambda at: (self.trials[at].nats, at))
            if min(self.trials) < best < max(self.trials):
                return
            self.meter.extend((self.held_BT.shape[1] - 1) * _probe(self.steps) + self.held_BT.numel() // 2)
            yield best - 1 if best == min(self.trials) else best + 1

    def _try(self, at: int, branch: _Branch, first: list[Tensor]) -> None:
        going = all(self._learn(branch, row, "trying rate") for row in first)
        nats = self._loss(branch) if going else math.inf
        self.trials[at] = Trial(branch.lr, nats if math.isfinite(nats) else math.inf)

    def _learn(self, branch: _Branch, row_BT: Tensor, doing: str) -> bool:
        going = branch.learn(row_BT)
        self.meter.add(row_BT.numel() - 1, f"{doing} {branch.lr:.1e}, {branch.nats[-1]:.2f} nats")
        return going

    def _loss(self, branch: _Branch) -> float:
        nats = branch.loss(self.held_BT)
        self.meter.add(self.held_BT.numel() // 2, f"validation, {nats:.2f} nats")
        return nats

    def _go_on(
        self,
        branch: _Branch,
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
                kept, least, worse = branch.tuned.delta(), nats, 0
            mark = min((m for m in marks if m > len(branch.nats)), default=0)
            if worse >= _PATIENCE or not mark:
                break
            rows = itertools.islice(dealt, mark - len(branch.nats))
            going = all(self._learn(branch, row, "learning at") for row in rows)
            nats = self._loss(branch) if going else math.inf
        return kept


def _probe(steps: int) -> int:
    return max(2, steps // 6)


def _share(step: int, steps: int) -> float:
    """The learning rate's share at step 1 … steps: linear warm-up over a tenth, the second half to zero."""
    return min(1.0, step / max(1.0, 0.1 * steps)) * min(1.0, 2 * (steps - step + 1) / steps)
