"""Straight-through training: products use the restored trits, gradients move the latent weights behind them.

Each hidden matrix W (attention's projections, every expert's three) enters the forward pass as
``scale · trit(W / scale)`` and the backward pass as itself (Bengio et al., 1308.3432 §2.3; Ma et al.,
2402.17764 §2). The scale is the mean or the median of ``|W|`` over an output's row or a whole matrix
(2407.09527 §3). Latent weights stay the model's own parameters under their own names, so optimisers,
checkpoints and copies see nothing unusual.

*Covered*: what ``restored_model`` holds is what the forward pass multiplied by, bit for bit, and what the
file ``sharedllm-ternary-1`` restores. *Not covered*: activations, embeddings, routers and gains, which train
in full precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from sharedllm.model import Transformer
from sharedllm.store.ternary.rounding import restored, ternarise
from sharedllm.training.optimizer import is_hidden

__all__ = ["restored_model", "straight_through", "ternary_weights"]

Scale = Literal["mean", "median"]
Per = Literal["row", "matrix"]


class _Rounded(torch.autograd.Function):
    """Round on the way forward, pass the gradient on unchanged."""

    @staticmethod
    def forward(ctx: Any, weight_XOI: Tensor, scale: Scale, per: Per) -> Tensor:
        return restored(*_trits(weight_XOI, scale, per))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, None, None]:
        return grads[0], None, None


def straight_through(model: Transformer, scale: Scale, per: Per) -> dict[str, Tensor]:
    """Give what stands in for each hidden matrix in a forward pass, by its name; gradients reach the model.

    For ``torch.func.functional_call``.
    """
    return {
        name: _Rounded.apply(weight, scale, per)  # type: ignore[no-untyped-call]
        for name, weight in _hidden(model)
    }


@torch.no_grad()
def ternary_weights(model: Transformer, scale: Scale, per: Per) -> dict[str, tuple[Tensor, Tensor]]:
    """Give the trits ``int8_XOI`` and the scales ``scales_XO1`` of each hidden matrix, by its name."""
    return {name: _trits(weight.detach(), scale, per) for name, weight in _hidden(model)}


def restored_model(model: Transformer, scale: Scale, per: Per) -> Transformer:
    """Copy a model with its hidden matrices rounded: fp32, in evaluation mode, on the model's device."""
    with torch.device("meta"):
        same = Transformer(model.config)
    weights = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    weights |= {name: restored(*found) for name, found in ternary_weights(model, scale, per).items()}
    same.load_state_dict(weights, assign=True)
    return same.eval()


def _hidden(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    return ((name, weight) for name, weight in model.named_parameters() if is_hidden(name, weight))


def _trits(weight_XOI: Tensor, scale: Scale, per: Per) -> tuple[Tensor, Tensor]:
    if per == "row":
        return ternarise(weight_XOI, scale=scale)
    rows = weight_XOI.flatten(-2).unsqueeze(-2)
    trits, scales = ternarise(rows, scale=scale)
    return trits.view(weight_XOI.shape), scales.expand(*weight_XOI.shape[:-1], 1)
