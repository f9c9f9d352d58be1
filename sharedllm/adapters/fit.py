"""Fit an adapter to one user's text: AdamW, warm-up and cosine, early stopping on validation; bit for bit
repeatable.

One recipe for every method, so that methods differ in what they tune and in nothing else: AdamW without
weight decay (``training.optimizer``), a tenth of the steps to warm up, a cosine to zero, gradients clipped to
norm 1, the best evaluation on validation text kept. Evaluation 0 is the base: a fit that only harms is
stopped at zero.

Repeatable: same tokens, seed, budget, precision and number of threads give the same bits on the same machine;
another number of threads adds up in another order. *Not covered*: the same bits on another processor.

``bf16`` runs the products of forward and backward in bfloat16 (trained weights, gains, softmax and sums stay
fp32). Measured on SmolLM2-135M, 4 × 256 tokens per step, one core with AVX512-BF16, tokens per CPU-second:

| | norm | lora | full |
|---|---:|---:|---:|
| fp32 | 138 | 106 | 86 |
| bf16 | 226 | 191 | 138 |

Validation losses of a bf16 fit are bf16's too. Report losses from ``model.score``, in fp32.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sharedllm.adapters import unigram
from sharedllm.adapters.apply import TRAINED, Method, check_method
from sharedllm.adapters.file import Adapter
from sharedllm.adapters.head import head_weight, mean_nats
from sharedllm.adapters.twin import PRECISIONS
from sharedllm.errors import BadRecipe
from sharedllm.model.transformer import Transformer
from sharedllm.store import Loaded, Progress
from sharedllm.training.optimizer import adamw

__all__ = ["FIT_VERSION", "Budget", "Fit", "batches", "fit", "spread", "window_nats"]

FIT_VERSION = 1  # raise it when the same inputs give other fits: cached ones are then made again
_CLIP = 1.0
_WARM_UP = 0.1
_PATIENCE = 2  # evaluations in a row that are worse than the best


@dataclass(frozen=True)
class Budget:
    """What a fit may spend: training tokens, in steps of ``batch`` windows of ``window`` tokens.

    ``evaluations`` on (at most) ``validation`` tokens are spread evenly over the steps; they do not count as
    tokens. Raises ``BadRecipe`` when it does not make a step.
    """

    tokens: int
    batch: int
    window: int
    evaluations: int = 4
    validation: int = 4096

    def __post_init__(self) -> None:
        if (
            min(self.batch, self.window, self.evaluations) < 1
            or self.steps < 1
            or self.validation < self.window
        ):
            raise BadRecipe(
                f"A budget of {self.tokens} tokens, {self.validation} for validation, makes no step of "
                f"{self.batch} × {self.window} tokens; give more tokens, or smaller windows or batches."
            )

    @property
    def steps(self) -> int:
        """How many optimiser steps the tokens make."""
        return self.tokens // (self.batch * self.window)


@dataclass(frozen=True)
class Fit:
    """A fitted adapter and how it came about; losses are nats per token in the fit's precision.

    ``validation_nats`` is (step, loss), step 0 being the base; for ``unigram``, steps number its strengths.
    ``tok_per_s`` counts training alone, ``seconds`` everything. A fit that ``diverged`` met NaN or infinity
    and keeps the best it had before.
    """

    adapter: Adapter
    train_nats: tuple[float, ...] = field(repr=False)
    validation_nats: tuple[tuple[int, float], ...]
    best_step: int
    trainable: int
    diverged: bool
    seconds: float
    tok_per_s: float
    threads: int

    @property
    def best_nats(self) -> float:
        """The validation loss of the adapter that was kept."""
        return dict(self.validation_nats)[self.best_step]


def fit(
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
    """Fit one adapter; ``lr`` is None for ``unigram``, which has none. The base is left as it was.

    Divergence is recorded, not raised. Raises ``BadAdapter`` for an unknown method, ``BadRecipe`` for a text
    shorter than a window, a learning rate where there is none (or the reverse), or an unknown precision.
    """
    check_method(method)
    if precision not in PRECISIONS:
        raise BadRecipe(f"There is no precision {precision!r}; expected one of: {', '.join(PRECISIONS)}.")
    if (lr is None) != (method == "unigram") or (lr is not None and not 0 < lr < math.inf):
        raise BadRecipe(
            f"A learning rate of {lr} does not go with {method}; give a positive one, to unigram None."
        )
    train_T = _tokens(train_tokens, budget, "training", base.model)
    held_BT = spread(_tokens(validation_tokens, budget, "validation", base.model), budget)
    started_s = time.perf_counter()
    if lr is None:
        return _count(base, train_T, held_BT, seed, budget, started_s)
    tuned = TRAINED[method](base.model, seed, precision)
    run = _Run(tuned, lr, budget, precision)
    training_s = run.train(batches(train_T, budget, seed), held_BT, f"{method} at {lr:.2g}", progress)
    return Fit(
        adapter=Adapter(method, base.manifest.weights_sha256, run.best),
        train_nats=tuple(run.train_nats),
        validation_nats=tuple(run.validation_nats),
        best_step=run.best_step,
        trainable=sum(parameter.numel() for parameter in tuned.parameters),
        diverged=run.diverged,
        seconds=time.perf_counter() - started_s,
        tok_per_s=len(run.train_nats) * budget.batch * budget.window / max(training_s, 1e-9),
        threads=torch.get_num_threads(),
    )


class _Run:
    """The loop's state: what is trained, the curves so far, and the best adapter seen."""

    def __init__(self, tuned: Method, lr: float, budget: Budget, precision: str) -> None:
        self.tuned, self.lr, self.budget, self.precision = tuned, lr, budget, precision
        self.optimizer = adamw(tuned.parameters, lr)
        self.train_nats: list[float] = []
        self.validation_nats: list[tuple[int, float]] = []
        self.best, self.best_step, self.best_nats = tuned.delta(), 0, math.inf
        self.worse, self.diverged = 0, False

    def train(self, dealt: Iterator[Tensor], held_BT: Tensor, name: str, progress: Progress | None) -> float:
        """Run all steps, or until the fit diverges or stops improving; return the seconds spent on steps."""
        steps, spent_s = self.budget.steps, 0.0
        at = {round(i * steps / self.budget.evaluations) for i in range(1, self.budget.evaluations + 1)}
        self._evaluate(0, held_BT)
        for step in range(1, steps + 1):
            started_s = time.perf_counter()
            self._step(step, next(dealt))
            spent_s += time.perf_counter() - started_s
            if step in at and not self.diverged:
                self._evaluate(step, held_BT)
            if progress is not None:
                done = step * self.budget.batch * self.budget.window
                rate = done / max(spent_s, 1e-9)
                what = f"{name}: {self.train_nats[-1]:.3f} nats, {rate:.0f} tok/s"
                progress(what, done, steps * self.budget.batch * self.budget.window)
            if self.diverged or self.worse >= _PATIENCE:
                break
        return spent_s

    def _step(self, step: int, windows_BT: Tensor) -> None:
        nats = window_nats(self.tuned.model, windows_BT, self.precision)
        nats.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.tuned.parameters, _CLIP)
        self.train_nats.append(nats.item())
        if not math.isfinite(nats.item() + norm.item()):
            self.diverged = True
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * _share(step, self.budget.steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _evaluate(self, step: int, held_BT: Tensor) -> None:
        parts = [
            float(window_nats(self.tuned.model, part_BT, self.precision)) * len(part_BT)
            for part_BT in torch.split(held_BT, self.budget.batch)
        ]
        nats = math.fsum(parts) / len(held_BT)
        self.diverged = not math.isfinite(nats)
        self.validation_nats.append((step, nats))
        self.worse += 1
        if nats < self.best_nats:
            self.best_step, self.best_nats, self.worse = step, nats, 0
            self.best = self.tuned.delta() if step else self.best


def window_nats(model: Transformer, windows_BT: Tensor, precision: str) -> Tensor:
    """Compute the mean loss of windows (context and targets overlap by all but one token)."""
    with torch.autocast(windows_BT.device.type, torch.bfloat16, enabled=precision == "bf16"):
        h_BTD = model.norm(model.hidden(windows_BT[:, :-1]))
    weight_VD = head_weight(model)
    if not torch.is_grad_enabled():
        weight_VD = weight_VD.detach()
    return mean_nats(h_BTD.float().flatten(0, 1), weight_VD, windows_BT[:, 1:].flatten(), precision)


def _share(step: int, steps: int) -> float:
    """The learning rate's share at step 1 … steps: linear warm-up, cosine to zero."""
    return min(1.0, step / max(1.0, _WARM_UP * steps)) * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))


def _count(
    base: Loaded, train_T: Tensor, held_BT: Tensor, seed: int, budget: Budget, started_s: float
) -> Fit:
    """Fit a unigram bias on the very windows that a trained method would see."""
    dealt = batches(train_T, budget, seed)
    windows_BT = torch.cat([next(dealt) for _ in range(budget.steps)])
    tensors = unigram.direction(base.model, windows_BT)
    nats = unigram.losses(base.model, held_BT, tensors)
    best = min(range(len(nats)), key=nats.__getitem__)
    seconds = time.perf_counter() - started_s
    return Fit(
        adapter=Adapter(
            "unigram",
            base.manifest.weights_sha256,
            {"tokens": tensors["tokens"], "bias": tensors["bias"] * unigram.STRENGTHS[best]},
        ),
        train_nats=(),
        validation_nats=tuple(enumerate(nats)),
        best_step=best,
        trainable=len(tensors["bias"]),
        diverged=False,
        seconds=seconds,
        tok_per_s=budget.steps * budget.batch * budget.window / max(seconds, 1e-9),
        threads=torch.get_num_threads(),
    )


def _tokens(given: Sequence[int] | Tensor, budget: Budget, name: str, model: Transformer) -> Tensor:
    tokens_T = torch.as_tensor(given, dtype=torch.long, device=model.embed.weight.device)
    if tokens_T.ndim != 1 or len(tokens_T) <= budget.window:
        raise BadRecipe(
            f"The {name} text has {tokens_T.numel()} tokens, a window takes {budget.window} and one more; "
            "give more text or a smaller window."
        )
    return tokens_T


def batches(train_T: Tensor, budget: Budget, seed: int) -> Iterator[Tensor]:
    """Deal out windows for ever: in each epoch another phase and order, both drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[Tensor] = []
    while True:
        room = len(train_T) - 1 - budget.window
        phase = int(torch.randint(min(budget.window, room + 1), (), generator=generator))
        starts = torch.arange(phase, room + 1, budget.window)
        for start in starts[torch.randperm(len(starts), generator=generator)].tolist():
            rows.append(train_T[start : start + budget.window + 1])
            if len(rows) == budget.batch:
                yield torch.stack(rows)
                rows = []


def spread(held_T: Tensor, budget: Budget) -> Tensor:
    """Cut validation windows, spread evenly over the text; the same for every seed and method."""
    room = len(held_T) - 1 - budget.window
    count = min(budget.validation, len(held_T) - 1) // budget.window
    starts = [round(i * room / max(1, count - 1)) for i in range(count)]
    return torch.stack([held_T[start : start + budget.window + 1] for start in starts])
