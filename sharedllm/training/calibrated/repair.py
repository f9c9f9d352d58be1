"""Make good what trits spoiled: gains, and if asked scales and trits, learnt from the full model.

The student is the model with trits, the teacher the model before; the loss is the divergence of their
distributions over the next token (``divergence``) on calibration text, so that text teaches the student what
the *teacher* thinks of it, not what it says. Gains alone cost little. With ``trits`` every matrix has latent
weights u in units of its scale: forward ``s · round(u)``, backward straight through (Bengio et al. 1308.3432
§2.3), AdamW for u, s and gains at once, starting from the calibrated trits.

The learning rate is searched by short runs, each judged on validation text, which also decides when to stop.

*Covered*: equal inputs give equal bits on one machine and thread count. *Not covered*: what the repair costs
outside the calibrated domains; a bet measures it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sharedllm.errors import BadRecipe
from sharedllm.model import Transformer
from sharedllm.store import Progress
from sharedllm.store.ternary import TernaryTensor
from sharedllm.training.calibrated.divergence import divergence
from sharedllm.training.calibrated.texts import Texts

__all__ = ["Budget", "Repaired", "repaired"]

_WARM_UP = 0.05
_CLIP = 1.0
_BETAS = (0.9, 0.95)
_LATENT_SHARE = 0.1  # of the rate: a latent weight that moves by 1 has changed its trit
_WITHIN = 0.49  # of a trit: a latent weight starts on its side of the threshold


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


class _Final(nn.Module):
    """What a model gives its head."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor) -> Tensor:
        h_BTD: Tensor = self.model.norm(self.model.hidden(tokens_BT))
        return h_BTD.flatten(0, 1).float()


class _Latent(torch.autograd.Function):
    """Round latent weights and scale them; backward straight through to them, exactly to the scales."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, scales: Tensor) -> Tensor:
        trits = u.round().clamp_(-1, 1)
        ctx.save_for_backward(trits, scales)
        grouped = trits.view(*scales.shape, -1)
        return (grouped * scales[..., None]).view(u.shape)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor]:
        trits, scales = ctx.saved_tensors
        grouped = slopes[0].view(*scales.shape, -1)
        by_scale = (grouped * trits.view_as(grouped)).sum(-1)
        return (grouped * scales[..., None]).view(trits.shape), by_scale


class _Student:
    """A model with trits whose gains, and if asked trits and scales, are parameters; all else is frozen."""

    def __init__(
        self, model: Transformer, weights: Mapping[str, TernaryTensor], *, trits: bool, precision: torch.dtype
    ) -> None:
        self._precision = precision
        given = {name: weight.detach() for name, weight in model.state_dict().items()}
        self.latent: dict[str, tuple[nn.Parameter, nn.Parameter, Tensor]] = {}
        for name, weight in weights.items():
            given[name] = weight.restored()
            if trits:
                self.latent[name] = _latent(model.get_parameter(name).detach(), weight)
        self.model = _frozen(model, given, precision)
        self.gains = {name: gain.requires_grad_() for name, gain in self.model.gains().items()}
        self._final = _Final(self.model)

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Say what is learnt, and how fast: gains and scales at ``rate``, latent weights slower."""
        scales = [share for _, share, _ in self.latent.values()]
        latent = [u for u, _, _ in self.latent.values()]
        groups = [{"params": [*self.gains.values(), *scales], "lr": rate}]
        return [*groups, {"params": latent, "lr": _LATENT_SHARE * rate}] if latent else groups

    def __call__(self, tokens_BT: Tensor) -> Tensor:
        """Give the final normed hidden state of every token, ``h_MD``."""
        made = {f"model.{name}": _weight(*latent) for name, latent in self.latent.items()}
        with torch.autocast("cpu", self._precision, enabled=self._precision != torch.float32):
            h_MD: Tensor = functional_call(self._final, made, (tokens_BT,))
        return h_MD

    @torch.no_grad()
    def kept(
        self, weights: Mapping[str, TernaryTensor]
    ) -> tuple[dict[str, Tensor], dict[str, TernaryTensor]]:
        """Copy gains and trits as they stand."""
        found = dict(weights)
        for name, (u, share, scales) in self.latent.items():
            trits = u.round().clamp_(-1, 1).to(torch.int8)
            found[name] = TernaryTensor.of((trits, (scales * share).half().float()))
        return {name: gain.detach().clone() for name, gain in self.gains.items()}, found


def _latent(full_XOI: Tensor, weight: TernaryTensor) -> tuple[nn.Parameter, nn.Parameter, Tensor]:
    """Latent weights in units of their scale: the full model's, as far as the calibrated trits allow."""
    if weight.planes != 1:
        raise BadRecipe("Trits of two planes can't be learnt; repair their gains alone.")
    scales = weight.scales[0].float()
    trits = weight.unpacked()[0].float()
    grouped = full_XOI.reshape(*scales.shape, -1) / scales.clamp_min(2.0**-24)[..., None]
    u = grouped.view(full_XOI.shape).clamp(trits - _WITHIN, trits + _WITHIN)
    return nn.Parameter(u), nn.Parameter(torch.ones_like(scales)), scales


def _weight(u: Tensor, share: Tensor, scales: Tensor) -> Tensor:
    made: Tensor = _Latent.apply(u, scales * share)  # type: ignore[no-untyped-call]
    return made


def _frozen(model: Transformer, given: Mapping[str, Tensor], precision: torch.dtype) -> Transformer:
    """A model of these weights that learns nothing; matrices in ``precision``, gains its own in fp32."""
    with torch.device("meta"):
        same = Transformer(model.config)
    gains = model.gains()
    weights = {
        name: weight.clone() if name in gains else weight if name == "embed.weight" else weight.to(precision)
        for name, weight in given.items()
    }
    same.load_state_dict(weights, assign=True)
    return same.requires_grad_(False).eval()


def repaired(
    model: Transformer,
    weights: Mapping[str, TernaryTensor],
    texts: Texts,
    budget: Budget,
    *,
    trits: bool,
    seed: int,
    precision: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> Repaired:
    """Repair a model whose matrices are ``weights`` so that it agrees with ``model`` again; see the module.

    Raises ``BadRecipe`` when every rate diverges, for text that is too short, or two planes with ``trits``.
    """
    teacher = _Final(_frozen(model, model.state_dict(), precision))
    head_VD = (model.embed.weight if model.head is None else model.get_parameter("head.weight")).detach()
    run = _Run(teacher, head_VD.to(precision), texts, budget, seed, precision)

    def student() -> _Student:
        return _Student(model, weights, trits=trits, precision=precision)

    steps = max(1, round(budget.trial * budget.steps))
    tried = {}
    for rate in budget.rates if len(budget.rates) > 1 else ():
        tried[rate] = run.learn(student(), weights, rate, steps, 1, progress).best_nats
    best = min(tried, key=tried.__getitem__) if tried else budget.rates[0]
    learnt = run.learn(student(), weights, best, budget.steps, budget.evaluations, progress)
    gains, found = learnt.best
    return Repaired(gains, found, best, tuple(learnt.curve))


@dataclass
class _Learnt:
    """The best student so far, and how its divergence on validation text fell."""

    best: tuple[dict[str, Tensor], dict[str, TernaryTensor]]
    best_nats: float
    curve: list[tuple[int, float]]


class _Run:
    """What all runs of one repair share: teacher, texts, budget."""

    def __init__(
        self,
        teacher: _Final,
        head_VD: Tensor,
        texts: Texts,
        budget: Budget,
        seed: int,
        precision: torch.dtype,
    ) -> None:
        self.teacher, self.head_VD, self.texts, self.budget = teacher, head_VD, texts, budget
        self.seed, self.precision = seed, precision
        rows = budget.validation // budget.window
        self.held_BT = texts.windows("validation", 0, seed, rows, budget.window)[:, :-1]

    def learn(
        self,
        student: _Student,
        weights: Mapping[str, TernaryTensor],
        rate: float,
        steps: int,
        evaluations: int,
        progress: Progress | None,
    ) -> _Learnt:
        """Train a student for ``steps`` and keep its best state; a run that diverges keeps what it had."""
        groups = student.groups(rate)
        parameters = [parameter for group in groups for parameter in group["params"]]
        rates = [group["lr"] for group in groups]
        optimizer = torch.optim.AdamW(groups, betas=_BETAS, weight_decay=0.0, fused=True)
        learnt = _Learnt(student.kept(weights), self.held_out(student), [])
        learnt.curve.append((0, learnt.best_nats))
        at = {round(i * steps / evaluations) for i in range(1, evaluations + 1)}
        for step in range(1, steps + 1):
            tokens_BT = self.texts.windows("train", step, self.seed, self.budget.batch, self.budget.window)
            nats = self.nats(student, tokens_BT[:, :-1])
            nats.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(parameters, _CLIP)
            if not math.isfinite(nats.item() + norm.item()):
                break
            for group, full in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = full * _share(step, steps)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if progress is not None:
                what = f"repairing at {rate:.2g}: {nats.item():.3f} nats from the full model"
                progress(what, step, steps)
            if step in at:
                held_nats = self.held_out(student)
                learnt.curve.append((step, held_nats))
                if held_nats < learnt.best_nats:
                    learnt.best, learnt.best_nats = student.kept(weights), held_nats
        return learnt

    def nats(self, student: _Student, tokens_BT: Tensor) -> Tensor:
        """The student's divergence from its teacher over a batch, nats per token."""
        with torch.no_grad(), torch.autocast("cpu", self.precision, enabled=self.precision != torch.float32):
            taught_MD = self.teacher(tokens_BT)
        return divergence(student(tokens_BT), taught_MD, self.head_VD)

    @torch.no_grad()
    def held_out(self, student: _Student) -> float:
        """The mean divergence on validation text, nats per token."""
        parts = torch.split(self.held_BT, self.budget.batch)
        total = math.fsum(self.nats(student, part).item() * len(part) for part in parts)
        return total / len(self.held_BT)


def _share(step: int, steps: int) -> float:
    """The learning rate's share at step 1 … steps: linear warm-up, cosine to zero."""
    return min(1.0, step / max(1.0, _WARM_UP * steps)) * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
