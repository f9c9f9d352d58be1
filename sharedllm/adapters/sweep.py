"""Every method gets its own learning rate, swept on validation; fits are kept, so nothing is ever fitted
twice.

The best learning rates of gains, LoRA and full fine-tuning differ by factors of 10 to 100, and a comparison
at one rate favours the method whose rate was guessed right (ml.md §1: layer-norm tuning scored 0.0 % at
LoRA's rate). So: start at the method's centre and one step of √10 to each side, and go on while the best rate
is at the edge.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharedllm.adapters.apply import check_method
from sharedllm.adapters.file import read, write
from sharedllm.adapters.fit import FIT_VERSION, Budget, Fit, fit
from sharedllm.errors import BadRecipe
from sharedllm.store import Loaded, Progress, atomic, cached, canonical_json

__all__ = ["CENTRES", "Sweep", "Trial", "fit_cached", "sweep"]

# On SmolLM2-135M gains want 3e-3 (at 1e-4 they learn a seventh as much: ml.md §7); LoRA wants some ten times
# the rate of full fine-tuning (Schulman et al. 2025).
CENTRES = {"norm": 3e-3, "norm+bias": 3e-3, "lora": 1e-3, "full": 3e-5}
_STEP = math.sqrt(10.0)
_LOSSES, _ADAPTER = "fit.json", "adapter.safetensors"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One learning rate of a sweep; ``nats`` is its best validation loss, infinite where the fit diverged."""

    lr: float
    nats: float
    best_step: int
    diverged: bool
    seconds: float


@dataclasses.dataclass(frozen=True)
class Sweep:
    """All trials by rate, and the best one's fit; ``at_edge``: fits ran out before the best was inside."""

    trials: tuple[Trial, ...]
    lr: float
    best: Fit
    at_edge: bool


def fit_cached(
    base: Loaded,
    train_tokens: Sequence[int] | Tensor,
    validation_tokens: Sequence[int] | Tensor,
    method: str,
    lr: float | None,
    seed: int,
    budget: Budget,
    *,
    precision: str = "fp32",
    progress: Progress | None = None,
) -> Fit:
    """Fit an adapter, or read the fit of the very same inputs from the store; raises what ``fit`` raises.

    The key is the base's weights, both texts' tokens, method, lr, seed, budget, precision and
    ``FIT_VERSION``.
    """
    task = _Task(base, train_tokens, validation_tokens, method, seed, budget, precision, progress)
    return task.kept(lr, lambda: task.fit(lr))


def sweep(
    base: Loaded,
    train_tokens: Sequence[int] | Tensor,
    validation_tokens: Sequence[int] | Tensor,
    method: str,
    seed: int,
    budget: Budget,
    *,
    most: int = 7,
    precision: str = "fp32",
    progress: Progress | None = None,
) -> Sweep:
    """Find the learning rate with the least validation loss in at most ``most`` fits, all with one seed.

    A fit that diverges counts as infinitely bad; of equal rates the one nearest the centre is taken. The
    store keeps the losses of all fits and the adapter of the best. Raises ``BadRecipe`` for fewer than three
    fits or a method without a learning rate, and what ``fit`` raises.
    """
    check_method(method)
    if method not in CENTRES or most < 3:
        raise BadRecipe(
            f"A sweep of {method} in {most} fits is none: give one of {', '.join(CENTRES)}, and at least 3."
        )
    task = _Task(base, train_tokens, validation_tokens, method, seed, budget, precision, progress)
    trials: dict[int, Trial] = {}
    made: dict[int, Fit] = {}
    for at in (0, -1, 1):
        trials[at] = task.trial(_rate(method, at), made, at)
    while len(trials) < most and (beyond := _beyond(trials)) is not None:
        trials[beyond] = task.trial(_rate(method, beyond), made, beyond)
    best = _best(trials)
    lr = trials[best].lr
    return Sweep(
        trials=tuple(trials[at] for at in sorted(trials)),
        lr=lr,
        best=task.kept(lr, lambda: made[best] if best in made else task.fit(lr)),
        at_edge=_beyond(trials) is not None,
    )


def _rate(method: str, at: int) -> float:
    return float(f"{CENTRES[method] * _STEP**at:.6g}")


def _best(trials: dict[int, Trial]) -> int:
    # where all diverge the smallest rate is best: the sweep then goes on downwards
    return min(trials, key=lambda at: (trials[at].nats, abs(at) if trials[at].nats < math.inf else at, at))


def _beyond(trials: dict[int, Trial]) -> int | None:
    """Say which rate to try next: the one past the edge at which the best is; None where it is inside."""
    best = _best(trials)
    return {min(trials): best - 1, max(trials): best + 1}.get(best)


@dataclasses.dataclass(frozen=True)
class _Task:
    """All that a fit depends on, except its learning rate."""

    base: Loaded
    train_tokens: Sequence[int] | Tensor
    validation_tokens: Sequence[int] | Tensor
    method: str
    seed: int
    budget: Budget
    precision: str
    progress: Progress | None

    def fit(self, lr: float | None) -> Fit:
        return fit(
            self.base,
            self.train_tokens,
            self.validation_tokens,
            self.method,
            lr,
            self.seed,
            self.budget,
            precision=self.precision,
            progress=self.progress,
        )

    def key(self, lr: float | None) -> dict[str, Any]:
        return {
            "base_sha256": self.base.manifest.weights_sha256,
            "train_sha256": _sha256(self.train_tokens),
            "validation_sha256": _sha256(self.validation_tokens),
            "method": self.method,
            "lr": lr,
            "seed": self.seed,
            "budget": dataclasses.asdict(self.budget),
            "precision": self.precision,
            "fit_version": FIT_VERSION,
        }

    def kept(self, lr: float | None, make: Callable[[], Fit]) -> Fit:
        """Read the fit at ``lr`` from the store, where ``make`` puts it the first time."""

        def compute(folder: Path) -> None:
            made = make()
            write(folder / _ADAPTER, made.adapter)
            atomic.write_bytes(folder / _LOSSES, _losses(made))

        folder = cached("fits", self.key(lr), compute)
        adapter = read(folder / _ADAPTER, self.base.manifest.weights_sha256)
        return Fit(adapter=adapter, **_read_losses(folder))

    def trial(self, lr: float, made: dict[int, Fit], at: int) -> Trial:
        """Fit at ``lr``, or read how that went; ``made`` is left with the best fit made in this process."""

        def compute(folder: Path) -> None:
            fitted = self.fit(lr)
            atomic.write_bytes(folder / _LOSSES, _losses(fitted))
            if not made or _score(fitted) < min(_score(other) for other in made.values()):
                made.clear()
                made[at] = fitted

        losses = _read_losses(cached("trials", self.key(lr), compute))
        diverged, best_step = losses["diverged"], losses["best_step"]
        nats = math.inf if diverged else dict(losses["validation_nats"])[best_step]
        return Trial(lr, nats, best_step, diverged, losses["seconds"])


def _score(made: Fit) -> float:
    return math.inf if made.diverged else made.best_nats


def _sha256(tokens: Sequence[int] | Tensor) -> str:
    return hashlib.sha256(torch.as_tensor(tokens, dtype=torch.int64).cpu().numpy().tobytes()).hexdigest()


def _losses(made: Fit) -> bytes:
    """Write all of a fit but its adapter as JSON, in which infinity and NaN are null."""
    values = {
        item.name: getattr(made, item.name) for item in dataclasses.fields(made) if item.name != "adapter"
    }
    values["train_nats"] = [_finite(nats) for nats in made.train_nats]
    values["validation_nats"] = [[step, _finite(nats)] for step, nats in made.validation_nats]
    return canonical_json(values)


def _finite(nats: float) -> float | None:
    return nats if math.isfinite(nats) else None


def _read_losses(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / _LOSSES).read_bytes())
    values["train_nats"] = tuple(math.inf if nats is None else nats for nats in values["train_nats"])
    values["validation_nats"] = tuple(
        (step, math.inf if nats is None else nats) for step, nats in values["validation_nats"]
    )
    return values
