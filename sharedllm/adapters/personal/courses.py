"""How one step is learnt at a learning rate, or at several that share it: AdamW, gradients clipped to norm 1.

Gains are learnt on ``Frozen``, where all rates that are tried share the frozen weights, their first step
(δ = 0 at every rate, so one gradient serves all) and, with experts, one batch. Other methods learn on a twin
of the base per rate, one after the other, because a twin is large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from sharedllm.adapters.apply import TRAINED, Method
from sharedllm.adapters.fit import window_nats
from sharedllm.adapters.personal.frozen import Frozen
from sharedllm.model.transformer import Transformer
from sharedllm.training.optimizer import Moments, adamw

__all__ = ["Branch", "Course", "course", "quick_products"]

_CLIP = 1.0
_ROWS = 4  # windows of one forward where nothing is learnt


class Branch:
    """What is learnt at one learning rate, and how far it has come (``nats``: the loss of each step)."""

    def __init__(self, lr: float, steps: int) -> None:
        self.lr, self.steps = lr, steps
        self.nats: list[float] = []

    def rate(self) -> float:
        """Give the rate of the last step: linear warm-up over a tenth, the second half to zero."""
        step, steps = len(self.nats), self.steps
        return self.lr * min(1.0, step / max(1.0, 0.1 * steps)) * min(1.0, 2 * (steps - step + 1) / steps)


B = TypeVar("B", bound=Branch)


class Course(Protocol[B]):
    """A method on a base, to be learnt at any number of rates from the same windows."""

    at_once: int

    def begin(self, lr: float, steps: int) -> B:
        """Start a branch at δ = 0."""

    def learn(self, branches: Sequence[B], window_T: Tensor) -> list[bool]:
        """Make one step of each on one window; say of each whether loss and gradient are still numbers."""

    def loss(self, branch: B, held_BT: Tensor) -> float:
        """Compute the mean loss (nats per token) of windows that teach nothing."""

    def delta(self, branch: B) -> dict[str, Tensor]:
        """Read off the adapter's tensors: copies."""


def course(base: Transformer, method: str, seed: int) -> Course[Any]:
    """Choose how ``method`` is learnt on ``base``, which is left as it is."""
    return _Gains(base) if method == "norm" else _Twins(base, method, seed)


def quick_products(model: Transformer, method: str) -> str:
    """Name the format in which this machine multiplies fastest while ``method`` learns on ``model``.

    Each expert gets another number of rows at each step, and oneDNN prepares every new shape of a bf16
    product anew (the toy base learnt 30 times slower so, measured): only ``Frozen``, which pads, uses it.
    """
    if model.embed.weight.device.type != "cpu":
        return "bf16"
    can = torch.cpu.get_capabilities()
    native = can.get("avx512_bf16") or can.get("amx_bf16") or can.get("bf16")
    padded = method == "norm" or not model.config.experts
    return "bf16" if native and padded else "fp32"


class _Gained(Branch):
    def __init__(self, lr: float, steps: int, gains_GD: Tensor) -> None:
        super().__init__(lr, steps)
        self.gains_GD, self._moments = gains_GD, Moments(gains_GD)

    def follow(self, nats: float, slope_GD: Tensor) -> bool:
        """Make a step; False where the loss or its gradient is no number any more."""
        self.nats.append(nats)
        norm = float(slope_GD.norm())
        if not math.isfinite(nats + norm):
            return False
        self._moments.step(self.gains_GD, slope_GD * min(1.0, _CLIP / (norm + 1e-6)), self.rate())
        return True


class _Gains:
    at_once = 3

    def __init__(self, base: Transformer) -> None:
        low = quick_products(base, "norm") == "bf16"
        self._base = {name: gain.detach().float() for name, gain in base.gains().items()}
        self._frozen = Frozen(base, torch.bfloat16 if low else torch.float32)
        self._first: tuple[Tensor, Tensor, Tensor] | None = None

    def begin(self, lr: float, steps: int) -> _Gained:
        return _Gained(lr, steps, torch.stack(list(self._base.values())))

    def learn(self, branches: Sequence[_Gained], window_T: Tensor) -> list[bool]:
        gains_RGD = torch.stack([branch.gains_GD for branch in branches])
        if any(branch.nats for branch in branches):
            nats_R, slope_RGD = self._frozen.slopes(window_T.expand(len(branches), -1), gains_RGD)
        else:
            nats_1, slope_1GD = self._start(window_T, gains_RGD[:1])
            nats_R, slope_RGD = nats_1.expand(len(branches)), slope_1GD.expand_as(gains_RGD)
        rows = zip(branches, nats_R.tolist(), slope_RGD, strict=True)
        return [branch.follow(nats, slope_GD) for branch, nats, slope_GD in rows]

    def _start(self, window_T: Tensor, gains_1GD: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the step from δ = 0, or remember it where another rate has made it."""
        if self._first is None or not torch.equal(self._first[0], window_T):
            self._first = (window_T, *self._frozen.slopes(window_T[None], gains_1GD))
        return self._first[1:]

    def loss(self, branch: _Gained, held_BT: Tensor) -> float:
        gains_BGD = branch.gains_GD.expand(len(held_BT), -1, -1)
        return float(self._frozen.nats(held_BT, gains_BGD).double().mean())

    def delta(self, branch: _Gained) -> dict[str, Tensor]:
        learnt = zip(self._base.items(), branch.gains_GD, strict=True)
        return {name: gain_D - before_D for (name, before_D), gain_D in learnt}


class _Twin(Branch):
    def __init__(self, lr: float, steps: int, tuned: Method) -> None:
        super().__init__(lr, steps)
        self.tuned, self._optimizer = tuned, adamw(tuned.parameters, lr)

    def follow(self, nats: float) -> bool:
        """Make a step along the gradients; False where they or the loss are no numbers any more."""
        self.nats.append(nats)
        norm = nn.utils.clip_grad_norm_(self.tuned.parameters, _CLIP)
        if not math.isfinite(nats + norm.item()):
            return False
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return True


class _Twins:
    at_once = 1

    def __init__(self, base: Transformer, method: str, seed: int) -> None:
        self._base, self._method, self._seed = base, method, seed
        self._precision = quick_products(base, method)

    def begin(self, lr: float, steps: int) -> _Twin:
        return _Twin(lr, steps, TRAINED[self._method](self._base, self._seed, self._precision))

    def learn(self, branches: Sequence[_Twin], window_T: Tensor) -> list[bool]:
        going = []
        for branch in branches:
            nats = window_nats(branch.tuned.model, window_T[None], self._precision)
            nats.backward()  # type: ignore[no-untyped-call]
            going.append(branch.follow(nats.item()))
        return going

    @torch.no_grad()
    def loss(self, branch: _Twin, held_BT: Tensor) -> float:
        model, parts = branch.tuned.model, torch.split(held_BT, _ROWS)
        nats = [float(window_nats(model, part_BT, self._precision)) * len(part_BT) for part_BT in parts]
        return math.fsum(nats) / len(held_BT)

    def delta(self, branch: _Twin) -> dict[str, Tensor]:
        return branch.tuned.delta()
