"""Make good what trits spoiled: gains, or scales too, or trits as well, learnt from the full model.

The student is the model with trits (``student``), the teacher the model before; the loss is the divergence of
their distributions over the next token (``divergence``) on calibration text, so that text teaches what the
*teacher* thinks of it, not what it says. The learning rate is searched by short runs, each judged on
validation text, which also says which state is kept: learning that only harms changes nothing.

*Covered*: equal inputs give equal bits on one machine and thread count, whether or not the run was
interrupted. *Not covered*: what the repair costs outside the calibrated domains; b013 measures it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sharedllm.errors import BadRecipe
from sharedllm.model import Transformer
from sharedllm.store import Progress, atomic, canonical_json
from sharedllm.store.ternary import TernaryTensor
from sharedllm.training.calibrated.divergence import divergence
from sharedllm.training.calibrated.student import Final, Learnt, Student, frozen
from sharedllm.training.calibrated.texts import Texts
from sharedllm.training.calibrated.walk import parts_of, weights_of

__all__ = ["Budget", "Repaired", "repaired"]

_WARM_UP = 0.05
_CLIP = 1.0
_BETAS = (0.9, 0.95)


@dataclass(frozen=True)
class Budget:
    """What a repair may spend: training tokens in steps of ``batch`` windows, evaluations on validation text.

    ``rates`` are the learning rates tried, each for ``trial`` of the steps. Raises ``BadRecipe`` when it does
    not make a step.
    """

    tokens: int
    rates: tuple[float, ...]
    batch: int = 4
    window: int = 256
    validation: int = 4096
    evaluations: int = 4
    trial: float = 0.125

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.rates or self.validation < self.window:
            raise BadRecipe(
                f"A budget of {self.tokens} tokens, {self.validation} for validation, makes no step of "
                f"{self.batch} × {self.window} tokens; give more tokens or smaller windows, and a rate."
            )

    @property
    def steps(self) -> int:
        return self.tokens // (self.batch * self.window)


@dataclass(frozen=True)
class Repaired:
    """Gains, and weights as trits, after the repair; losses are nats per token from the full model."""

    gains: dict[str, Tensor]
    weights: dict[str, TernaryTensor]
    rate: float
    validation_nats: tuple[tuple[int, float], ...]


def repaired(
    model: Transformer,
    weights: Mapping[str, TernaryTensor],
    texts: Texts,
    budget: Budget,
    *,
    learnt: Learnt,
    seed: int,
    kept: Path,
    precision: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> Repaired:
    """Repair a model whose matrices are ``weights`` so that it agrees with ``model`` again; see the module.

    What a killed run had done waits in ``kept``. Raises ``BadRecipe`` for text that is too short, or for two
    planes but for their gains; ``WriteFailed``.
    """
    run = _Run(model, texts, budget, seed, precision, progress)

    def student() -> Student:
        return Student(model, weights, learnt=learnt, precision=precision)

    rate = budget.rates[0]
    if len(budget.rates) > 1:
        rate = _searched(kept / "tried.json", budget, lambda at: run.tried(student(), at))
    learning = run.learn(
        _Learning(student(), weights, rate), budget.steps, budget.evaluations, kept / "now.pt"
    )
    gains, found = learning.best
    return Repaired(gains, found, rate, tuple(learning.curve))


def _searched(path: Path, budget: Budget, tried: Callable[[float], float]) -> float:
    """The rate whose short run ends nearest to the full model; what was tried already is in ``path``."""
    found: dict[str, float] = json.loads(path.read_bytes()) if path.is_file() else {}
    for rate in budget.rates:
        if str(rate) not in found:
            found[str(rate)] = tried(rate)
            atomic.write_bytes(path, canonical_json(found))
    return min(budget.rates, key=lambda rate: found[str(rate)])


class _Learning:
    """A student on its way: its optimiser, the best state so far, and how its divergence fell."""

    def __init__(self, student: Student, weights: Mapping[str, TernaryTensor], rate: float) -> None:
        self.student, self._weights = student, weights
        groups = student.groups(rate)
        self._rates = [group["lr"] for group in groups]
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._optimizer = torch.optim.AdamW(groups, betas=_BETAS, weight_decay=0.0, fused=True)
        self.best, self.best_nats, self.steps = student.kept(weights), math.inf, 0
        self.curve: list[tuple[int, float]] = []

    def step(self, nats: Tensor, share: float) -> bool:
        """Take a step down the slope of ``nats`` at this share of the rate; say whether it was finite."""
        nats.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters, _CLIP)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        finite = math.isfinite(nats.item() + norm.item())
        if finite:
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        return finite

    def judged(self, nats: float) -> None:
        """Note the divergence on validation text, and keep the state if it is the least so far."""
        self.curve.append((self.steps, nats))
        if nats < self.best_nats:
            self.best_nats = nats
            self.best = self.student.kept(self._weights) if self.steps else self.best

    def write(self, path: Path) -> None:
        """Keep everything that going on needs."""
        state = {
            "steps": self.steps,
            "curve": self.curve,
            "parameters": [parameter.detach() for parameter in self._parameters],
            "optimizer": self._optimizer.state_dict(),
            "best": (self.best[0], parts_of(self.best[1])),
        }
        with atomic.writing(path) as file:
            torch.save(state, file)

    @torch.no_grad()
    def read(self, path: Path) -> None:
        """Go on from what ``write`` kept."""
        state = torch.load(path, weights_only=True)
        self.steps, self.curve = state["steps"], [(step, nats) for step, nats in state["curve"]]
        for parameter, kept in zip(self._parameters, state["parameters"], strict=True):
            parameter.copy_(kept)
        self._optimizer.load_state_dict(state["optimizer"])
        gains, parts = state["best"]
        shapes = {name: weight.shape for name, weight in self._weights.items()}
        self.best, self.best_nats = (gains, weights_of(parts, shapes)), min(nats for _, nats in self.curve)


class _Run:
    """What all runs of one repair share: teacher, texts, budget."""

    def __init__(
        self,
        model: Transformer,
        texts: Texts,
        budget: Budget,
        seed: int,
        precision: torch.dtype,
        progress: Progress | None,
    ) -> None:
        self._teacher = Final(frozen(model, model.state_dict(), precision))
        head_VD = model.embed.weight if model.head is None else model.get_parameter("head.weight")
        self._head_VD = head_VD.detach().to(precision)
        self._texts, self._budget, self._seed, self._precision = texts, budget, seed, precision
        self._progress = progress
        rows = budget.validation // budget.window
        self._held_BT = texts.windows("validation", 0, seed, rows, budget.window)[:, :-1]

    def tried(self, student: Student, rate: float) -> float:
        """How near a short run at this rate brings the student, nats per token."""
        steps = max(1, round(self._budget.trial * self._budget.steps))
        return self.learn(_Learning(student, {}, rate), steps, 1, None).best_nats

    def learn(self, learning: _Learning, steps: int, evaluations: int, kept: Path | None) -> _Learning:
        """Go on to ``steps``, kept on disk at each evaluation; a run that diverges keeps what it had."""
        if kept is not None and kept.is_file():
            learning.read(kept)
        else:
            learning.judged(self._held_out(learning.student))
        budget, at = self._budget, {round(i * steps / evaluations) for i in range(1, evaluations + 1)}
        while learning.steps < steps:
            draw = learning.steps + 1
            tokens_BT = self._texts.windows("train", draw, self._seed, budget.batch, budget.window)
            nats = self._nats(learning.student, tokens_BT[:, :-1])
            if not learning.step(nats, _share(draw, steps)):
                break
            if self._progress is not None:
                self._progress(f"learning: {nats.item():.3f} nats from the full model", draw, steps)
            if draw in at:
                learning.judged(self._held_out(learning.student))
                if kept is not None:
                    learning.write(kept)
        return learning

    def _nats(self, student: Student, tokens_BT: Tensor) -> Tensor:
        """The student's divergence from its teacher over a batch, nats per token."""
        with torch.no_grad(), torch.autocast("cpu", self._precision, enabled=student.low):
            taught_MD = self._teacher(tokens_BT)
        return divergence(student(tokens_BT), taught_MD, self._head_VD)

    @torch.no_grad()
    def _held_out(self, student: Student) -> float:
        """The mean divergence on validation text, nats per token."""
        parts = torch.split(self._held_BT, self._budget.batch)
        total = math.fsum(self._nats(student, part).item() * len(part) for part in parts)
        return total / len(self._held_BT)


def _share(step: int, steps: int) -> float:
    """The learning rate's share at step 1 … steps: linear warm-up, cosine to zero."""
    return min(1.0, step / max(1.0, _WARM_UP * steps)) * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
