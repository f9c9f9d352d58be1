"""Muon for hidden matrices, AdamW for everything else (embeddings, norms, router, head).

Muon replaces each matrix's momentum by the nearest semi-orthogonal matrix, found by five Newton–Schulz steps
(Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024). Stacked expert
tensors are batches of matrices. Our symbols: ``lr`` is his learning rate, scaled by √max(1, rows / columns)
as in his code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

__all__ = ["Moments", "Muon", "adamw", "hidden_matrices", "is_hidden", "newton_schulz"]

# Keller Jordan's quintic: steep at zero, so that five steps suffice; singular values land in about [0.7, 1.2]
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5
_EPS = 1e-7
_ADAM_BETAS, _ADAM_EPS = (0.9, 0.95), 1e-8
# Not hidden layers: their rows are tokens or experts, whose updates should not be made equally large
_NOT_HIDDEN = ("embed", "head", "router")


def newton_schulz(g_XMN: Tensor) -> Tensor:
    """Return the nearest semi-orthogonal matrices to ``g_XMN``, roughly: singular values in about [0.7, 1.2].

    ``X`` is any number of leading batch dimensions. A zero matrix stays zero.
    """
    x: Tensor = g_XMN
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + _EPS)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    orthogonal: Tensor = x.mT if tall else x
    return orthogonal


def is_hidden(name: str, parameter: Tensor) -> bool:
    """Say whether a parameter of this name is a hidden matrix, or a batch of them."""
    return parameter.ndim >= 2 and not any(part in _NOT_HIDDEN for part in name.split("."))


def hidden_matrices(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Sort a model's parameters into (hidden matrices, the rest), in the order of ``named_parameters``."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if is_hidden(name, parameter) else rest).append(parameter)
    return matrices, rest


def adamw(parameters: Iterable[nn.Parameter], lr: float, *, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter, arXiv 1711.05101) with β = (0.9, 0.95) that decays no vectors.

    Gains and biases are vectors: decay would pull a gain towards zero, not towards the identity.
    """
    kept = list(parameters)
    groups = [
        {"params": [p for p in kept if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in kept if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=_ADAM_BETAS, eps=_ADAM_EPS)


class Moments:
    """AdamW without decay for one tensor, step by step as ``adamw`` moves it.

    For short runs: the first use of ``torch.optim`` imports torch's compiler, which takes two seconds
    [measured, torch 2.13].
    """

    def __init__(self, like: Tensor) -> None:
        self._mean, self._square, self._steps = torch.zeros_like(like), torch.zeros_like(like), 0

    @torch.no_grad()
    def step(self, tensor: Tensor, slope: Tensor, lr: float) -> None:
        """Move ``tensor`` in place."""
        self._steps += 1
        first, second = _ADAM_BETAS
        self._mean.lerp_(slope, 1 - first)
        self._square.mul_(second).addcmul_(slope, slope, value=1 - second)
        root = (self._square / (1 - second**self._steps)).sqrt_().add_(_ADAM_EPS)
        tensor.addcdiv_(self._mean, root, value=-lr / (1 - first**self._steps))


class Muon(torch.optim.Optimizer):
    """Momentum, Nesterov look-ahead, orthogonalisation; for matrices and batches of matrices only.

    Matrices of one shape are orthogonalised in one batched product, which is what makes Muon affordable on a
    CPU; ``precision`` is that of these products. Raises ``ValueError`` for a vector.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        kept = list(parameters)
        self._precision = precision
        for parameter in kept:
            if parameter.ndim < 2:
                raise ValueError(
                    f"Muon orthogonalises matrices; give a vector of shape {tuple(parameter.shape)} to adamw."
                )
        super().__init__(kept, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            by_shape: defaultdict[tuple[int, ...], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    moved = self._moved(parameter, group["momentum"])
                    by_shape[tuple(parameter.shape)].append((parameter, moved))
            for same in by_shape.values():
                _apply(same, group, self._precision)
        return loss

    def _moved(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Fold the gradient into the running mean and return Nesterov's look-ahead of it."""
        grad = parameter.grad
        assert grad is not None
        buffer: Tensor = self.state[parameter].setdefault("momentum", torch.zeros_like(grad))
        buffer.lerp_(grad, 1 - momentum)
        return grad.lerp(buffer, momentum)


def _apply(same: list[tuple[nn.Parameter, Tensor]], group: dict[str, Any], precision: torch.dtype) -> None:
    rows, columns = same[0][0].shape[-2:]
    lr = group["lr"]
    updates = newton_schulz(torch.stack([moved for _, moved in same]).to(precision))
    scaled_lr = lr * max(1.0, rows / columns) ** 0.5
    for (parameter, _), update in zip(same, updates, strict=True):
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.add_(update.to(parameter.dtype), alpha=-scaled_lr)
