"""The loss of many tokens over a large vocabulary, in pieces, so that logits never fill the memory.

1,024 tokens × 49,152 logits are 201 MB in fp32, several times over while differentiating. Here each piece of
rows is multiplied, turned into its gradient and dropped at once (as Hsu et al., "Liger Kernel", 2410.10989
§3.2, do), so that nothing is computed twice and only ``[rows, V]`` lives at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sharedllm.model.transformer import Transformer

__all__ = ["head_weight", "mean_nats", "pieces"]

ROWS = 256


def head_weight(model: Transformer) -> Tensor:
    """Give the matrix that makes logits of hidden states, ``[V, D]``: the head, or a tied embedding."""
    name = "embed.weight" if model.head is None else "head.weight"
    return model.get_parameter(name)


def pieces(h_MD: Tensor, targets_M: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Cut rows and their targets into pieces of bounded logits."""
    return list(zip(torch.split(h_MD, ROWS), torch.split(targets_M, ROWS), strict=True))


def mean_nats(h_MD: Tensor, weight_VD: Tensor, targets_M: Tensor, precision: str) -> Tensor:
    """Compute the mean loss (nats per token) of the final hidden states of M tokens, differentiably.

    ``bf16`` rounds the operands of each product and keeps softmax and sums in fp32.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    nats: Tensor = _MeanNats.apply(h_MD, weight_VD, targets_M, dtype)  # type: ignore[no-untyped-call]
    return nats


class _MeanNats(torch.autograd.Function):
    """Forward computes loss and gradients together; backward only scales them."""

    @staticmethod
    def forward(ctx: Any, h_MD: Tensor, weight_VD: Tensor, targets_M: Tensor, dtype: torch.dtype) -> Tensor:
        to_h, to_weight = ctx.needs_input_grad[:2]
        low_VD, total_nats, m = weight_VD.to(dtype), h_MD.new_zeros((), dtype=torch.float64), len(h_MD)
        dh_MD = torch.empty_like(h_MD, dtype=torch.float32) if to_h else None
        dweight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if to_weight else None
        for start in range(0, m, ROWS):
            h, targets = h_MD[start : start + ROWS].to(dtype), targets_M[start : start + ROWS, None]
            p = (h @ low_VD.T).float()
            p -= p.amax(1, keepdim=True)
            at_target = p.gather(1, targets)
            total = p.exp_().sum(1, keepdim=True)
            total_nats += (total.log() - at_target).sum()
            if not (to_h or to_weight):
                continue
            p /= total * m
            d = p.scatter_add_(1, targets, torch.full_like(total, -1 / m)).to(dtype)
            if dh_MD is not None:
                dh_MD[start : start + ROWS] = d @ low_VD
            if dweight_VD is not None:
                dweight_VD += d.T @ h
        ctx.save_for_backward(dh_MD, dweight_VD)
        return (total_nats / m).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        dh_MD, dweight_VD = ctx.saved_tensors
        return (
            None if dh_MD is None else dh_MD * scale,
            None if dweight_VD is None else dweight_VD * scale,
            None,
            None,
        )
