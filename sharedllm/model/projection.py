"""Matrix products, as fast as this machine's memory delivers the weights.

Decoding reads every weight once per token and does almost no arithmetic, so the kernel that keeps all cores
reading wins. PyTorch's default for one row is a matrix-vector product that runs on one core; oneDNN's runs on
all of them, on the same weights without a copy. Measured on two Zen 4 cores for a 3,072 × 576 matrix: 11 GB/s
against 27 GB/s, and 1.1–1.4× at 64 rows and more. Where gradients flow, PyTorch's own is used.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Projection", "project"]

_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # None: torch without oneDNN


class Projection(nn.Linear):
    """A matrix product without bias: ``x[…, in] → y[…, out]`` with ``weight[out, in]``.

    An ``nn.Linear`` in every respect that ``peft`` looks at. It leaves drawing its weights to the model that
    it is part of.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        """Draw nothing: the model initialises all of its weights in one place."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the transposed weight."""
        return project(x, self.weight)


def project(x: Tensor, weight: Tensor) -> Tensor:
    """Compute ``x @ weightᵀ``: by oneDNN for fp32 inference on a CPU, else as torch would."""
    fast = (
        _ONEDNN is not None
        and not torch.is_grad_enabled()
        and x.dtype is torch.float32
        and weight.dtype is torch.float32
        and weight.device.type == "cpu"
    )
    return _ONEDNN(x, weight, None, "none", [], "") if fast else F.linear(x, weight)
