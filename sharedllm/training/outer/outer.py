"""The outer step: what the workers' round came to, taken as a gradient by SGD with Nesterov momentum.

A worker's *pseudo-gradient* is θ_start − θ_local, where its inner steps led, reversed. DiLoCo (Douillard et
al., arXiv 2311.08105, §2) takes the mean of them with lr 0.7 and momentum 0.9; lr 1 without momentum is plain
averaging of weights. Every worker takes the same step from the same bytes, so no server is needed.

*Covered*: the step is computed in fp64 and rounded once, so that plain averaging of one worker's exact
pseudo-gradient gives that worker's weights, bit for bit, unless a weight shrinks by more than 2²⁸ in one
round. *Not covered*: an update that is not finite, which ``robust`` and ``decode`` keep away.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Module

from sharedllm.errors import BadRecipe

__all__ = ["Outer", "put_weights", "weights_of"]


@dataclass
class Outer:
    """Nesterov's outer step; ``momentum_P`` (None before the first) is all the state it has.

    Raises ``BadRecipe`` for a rate that is not positive or a momentum outside [0, 1).
    """

    lr: float = 0.7
    momentum: float = 0.9
    momentum_P: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not (self.lr > 0 and 0 <= self.momentum < 1):
            raise BadRecipe(
                f"An outer step has a positive rate and a momentum of at least 0 and below 1, not {self.lr} "
                f"and {self.momentum}."
            )

    def step(self, weights_P: Tensor, update_P: Tensor) -> Tensor:
        """Return the next weights, in the precision of ``weights_P``; neither argument changes."""
        look_ahead_P = update_P
        if self.momentum:
            before_P = self.momentum_P
            self.momentum_P = update_P.clone() if before_P is None else self.momentum * before_P + update_P
            look_ahead_P = update_P + self.momentum * self.momentum_P
        return (weights_P.double() - self.lr * look_ahead_P.double()).to(weights_P.dtype)


@torch.no_grad()
def weights_of(model: Module) -> Tensor:
    """Copy all parameters into one vector ``weights_P``, in the order of ``parameters()``."""
    return torch.cat([parameter.flatten() for parameter in model.parameters()])


@torch.no_grad()
def put_weights(model: Module, weights_P: Tensor) -> None:
    """Copy such a vector into a model's parameters. Raises ``ValueError`` for another length."""
    parameters = list(model.parameters())
    sizes = [parameter.numel() for parameter in parameters]
    if weights_P.shape != (sum(sizes),):
        raise ValueError(f"A vector of shape {tuple(weights_P.shape)} does not fill {sum(sizes)} weights.")
    for parameter, part in zip(parameters, torch.split(weights_P, sizes), strict=True):
        parameter.copy_(part.view_as(parameter))
