"""How one step is learnt at a learning rate, or at several that share it: AdamW, gradients clipped to norm 1.

Gains are learnt on ``Frozen``, where all rates that are tried share the frozen weights, their first step
(δ = 0 at every rate, so one gradient serves all) and, with experts, one batch. Other methods learn on a twin
of the base per rate, one after the other, because a twin is large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from sharedllm.adapters.apply import TRAINED, Method
from sharedllm.adapters.fit import window_nats
from sharedllm.adapters.personal.frozen import Frozen
from sharedllm.model.transformer import Transformer
from sharedllm.training.optimizer import adamw

__all__ = ["Branch", "Course", "course", "quick_products"]

_CLIP = 1.0
_ROWS = 4  # windows of one forward where nothing is learnt


class Branch:
    """What is learnt at one learning rate, and how far it has come (``nats``: the loss of each step)."""

    def __init__(self, lr: float, steps: int, parameters: list[nn.Parameter]) -> None:
        self.lr, self.steps, self.parameters = lr, steps, parameters
        self.optimizer = adamw(parameters, lr)
        self.nats: list[float] = []

    def step(self, nats: float) -> bool:
        """Follow the gradients; False where they or the loss are no numbers any more."""
        norm = nn.utils.clip_grad_norm_(self.parameters, _CLIP)
        self.nats.append(nats)
        if not math.isfinite(nats + norm.item()):
            return False
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * _share(len(self.nats), self.steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return True


class Course(Protocol):
    """A method on a base, to be learnt at any number of rates from the same windows."""

    at_once: int

    def begin(self, lr: float, steps: int) -> Branch:
        """Start a branch at δ = 0."""

    def learn(self, branches: Sequence[Branch], window_T: Tensor) -> list[bool]:
        """Make one step of each on one window; say of each whether it still has numbers."""

    def loss(self, branch: Branch, held_BT: Tensor) -> float:
        """Compute the mean loss (nats per token) of windows that teach nothing."""

    def delta(self, branch: Branch) -> dict[str, Tensor]:
        """Read off the adapter's tensors: copies."""


def course(base: Transformer, method: str, seed: int) -> Course:
    """Choose how ``method`` is learnt on ``base``, which is left as it is."""
    return _Gains(base) if method == "norm" else _Twins(base, method, seed)


def quick_products(model: Transformer, method: str) -> str:
    """Name the format in which this machine multiplies fastest while ``method`` learns on ``model``."""
    if model.embed.weight.device.type != "cpu":
        return "bf16"
    can = torch.cpu.get_capabilities()
    native = can.get("avx512_bf16") or can.get("amx_bf16") or can.get("bf16")
    padded = method == "norm" or not model.config.experts
    return "bf16" if native and padded else "fp32"


class _Gains:
    at_once = 3

    def __init__(self, base: Transformer) -> None:
        precision = quick_products(base, "norm")
        self._base = {name: gain.detach().float() for name, gain in base.gains().items()}
        self._frozen = Frozen(base, torch.bfloat16 if precision == "bf16" else torch.float32)
        self._first: tuple[Tensor, Tensor, Tensor] | None = None

    def begin(self, lr: float, steps: int) -> Branch:
        return Branch(lr, steps, [nn.Parameter(torch.stack(list(self._base.values())))])

    def learn(self, branches: Sequence[Branch], window_T: Tensor) -> list[bool]:
        if all(not branch.nats for branch in branches):
            nats_R, slope_RGD = self._start(branches[0], window_T)
        else:
            gains_RGD = torch.stack([branch.parameters[0].detach() for branch in branches])
            nats_R, slope_RGD = self._frozen.slopes(window_T.expand(len(branches), -1), gains_RGD)
        going = []
        for row, branch in enumerate(branches):
            branch.parameters[0].grad = slope_RGD[row % len(slope_RGD)].clone()
            going.append(branch.step(nats_R[row % len(nats_R)].item()))
        return going

    def _start(self, branch: Branch, window_T: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the step from δ = 0, or remember it where another rate has made it."""
        if self._first is None or not torch.equal(self._first[0], window_T):
            gains_1GD = branch.parameters[0].detach()[None]
            self._first = (window_T, *self._frozen.slopes(window_T[None], gains_1GD))
        return self._first[1:]

    def loss(self, branch: Branch, held_BT: Tensor) -> float:
        gains_BGD = branch.parameters[0].detach().expand(len(held_BT), -1, -1)
        return float(self._frozen.nats(held_BT, gains_BGD).double().mean())

    def delta(self, branch: Branch) -> dict[str, Tensor]:
        learnt = zip(self._base.items(), branch.parameters[0].detach(), strict=True)
        return {name: gain - before for (name, before), gain in learnt}


class _Twins:
    at_once = 1

    def __init__(self, base: Transformer, method: str, seed: int) -> None:
        self._base, self._method, self._seed = base, method, seed
        self._precision = quick_products(base, method)

    def begin(self, lr: float, steps: int) -> Branch:
        tuned = TRAINED[self._method](self._base, self._seed, self._precision)
        return _Twin(lr, steps, tuned)

    def learn(self, branches: Sequence[Branch], window_T: Tensor) -> list[bool]:
        going = []
        for branch in branches:
            nats = window_nats(_tuned(branch).model, window_T[None], self._precision)
            nats.backward()  # type: ignore[no-untyped-call]
            going.append(branch.step(nats.item()))
        return going

    @torch.no_grad()
    def loss(self, branch: Branch, held_BT: Tensor) -> float:
        model, parts = _tuned(branch).model, torch.split(held_BT, _ROWS)
        nats = [float(window_nats(model, part_BT, self._precision)) * len(part_BT) for part_BT in parts]
        return math.fsum(nats) / len(held_BT)

    def delta(self, branch: Branch) -> dict[str, Tensor]:
        return _tuned(branch).delta()


class _Twin(Branch):
    def __init__(self, lr: float, steps: int, tuned: Method) -> None:
        super().__init__(lr, steps, tuned.parameters)
        self.tuned = tuned


def _tuned(branch: Branch) -> Method:
    assert isinstance(branch, _Twin)
    return branch.tuned


def _share(step: int, steps: int) -> float:
    """The learning rate's share at step 1 … steps: linear warm-up over a tenth, the second half to zero."""
    return min(1.0, step / max(1.0, 0.1 * steps)) * min(1.0, 2 * (steps - step + 1) / steps)
