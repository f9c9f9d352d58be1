"""Matrix products, as fast as this machine's memory delivers the weights.

Decoding reads every weight once per token and does almost no arithmetic, so the kernel that keeps all cores
reading wins. PyTorch's default for one row is a matrix-vector product that runs on one core; oneDNN's runs on
all of them, on the same weights without a copy. Measured on two Zen 4 cores for a 3,072 × 576 matrix: 11 GB/s
against 27 GB/s, and 1.1–1.4× at 64 rows and more. Where gradients flow, PyTorch's own is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Int8Projection",
    "PackedProjection",
    "Projection",
    "join",
    "pack",
    "project",
    "project_all",
    "shared",
    "steady",
]

_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # None: torch without oneDNN
_REORDER: Any = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
_PACKED_FOR = (
    8  # rows that oneDNN is told to expect: its layout then serves any number of them well (measured)
)
_FEW_ROWS = 8  # up to here reading int8 weights beats expanding them to bf16 first (measured)


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


def project_all(x: Tensor, *projections: nn.Module) -> Sequence[Tensor]:
    """Apply several projections to the same input: in one product where ``join`` laid their weights."""
    first = projections[0]
    if isinstance(first, _Slice):
        return torch.split(first.whole(x), first.sizes, dim=-1)
    weights = [] if torch.is_grad_enabled() else _plain_weights(projections)
    joint = _joint(weights)
    if joint is None:
        return [projection(x) for projection in projections]
    return torch.split(project(x, joint), [len(weight) for weight in weights], dim=-1)


@torch.no_grad()
def join(*projections: nn.Module) -> None:
    """Lay the weights of projections end to end in memory, so that one product can read them all.

    Each stays a parameter of its own, as a view: training, saving and ``peft`` see no difference. Does
    nothing where they lie so already, or where one is no plain ``Projection``.
    """
    weights = _plain_weights(projections)
    if weights and _joint(weights) is None:
        with torch.inference_mode(False):
            joined = torch.cat([weight.detach() for weight in weights])
            for weight, part in zip(weights, torch.split(joined, [len(w) for w in weights]), strict=True):
                weight.data = part


def _plain_weights(projections: Sequence[nn.Module]) -> list[Tensor]:
    """The weights of projections, or none if something else has taken the place of one (int8, LoRA)."""
    weights = [projection.weight for projection in projections if type(projection) is Projection]
    return weights if len(weights) == len(projections) else []


def _joint(weights: Sequence[Tensor]) -> Tensor | None:
    """The one matrix that weights form, if they lie end to end in one storage; no copy."""
    if not weights:
        return None
    storage, at = weights[0].untyped_storage().data_ptr(), weights[0].storage_offset()
    for weight in weights:
        place = (weight.untyped_storage().data_ptr(), weight.storage_offset())
        if place != (storage, at) or not weight.is_contiguous():
            return None
        at += weight.numel()
    inputs = weights[0].shape[1]
    return weights[0].as_strided((sum(map(len, weights)), inputs), (inputs, 1))


class PackedProjection(nn.Module):
    """``Projection`` for serving: packed as oneDNN likes it, and no row's result depends on other rows.

    One row, eight rows or a prompt of sixty-four give each row the same bits, at the speed of reading the
    weight once. Where the kernel for one row adds in another order than that for many (found out when it is
    made), a single row is multiplied twice over.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        with torch.inference_mode(False), torch.no_grad():
            dense = weight.detach().float().contiguous()
            self._packed = dense if _REORDER is None else _REORDER(dense, _PACKED_FOR)
        self.outputs, self.inputs = weight.shape
        with torch.inference_mode():
            rows = _sample(self.inputs)[:8]
            together = _multiplied(rows, self._packed)
            alone = torch.cat([_multiplied(row[None], self._packed) for row in rows])
        self._fewest = 1 if bool((alone == together).all()) else 2

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the transposed weight."""
        rows = x.reshape(-1, self.inputs)
        several = rows if len(rows) != 1 else rows.expand(self._fewest, -1).contiguous()
        return _multiplied(several, self._packed)[: len(rows)].view(*x.shape[:-1], self.outputs)


class _Slice(nn.Module):
    """One of the projections that share a product; ``sizes`` are the outputs of all of them."""

    def __init__(self, whole: nn.Module, sizes: list[int], index: int) -> None:
        super().__init__()
        self.whole, self.sizes, self.index = whole, sizes, index

    def forward(self, x: Tensor) -> Tensor:
        return torch.split(self.whole(x), self.sizes, dim=-1)[self.index]


def pack(*projections: nn.Module) -> list[nn.Module]:
    """Replacements for plain projections of the same input, which read their weights in one product.

    Those of several must be applied together, by ``project_all``, in this order, to be fast. Where something
    else has taken the place of one already, all stay as they are.
    """
    if not all(isinstance(projection, Projection) for projection in projections):
        return list(projections)
    weights = [cast(Tensor, projection.weight).detach() for projection in projections]
    return shared(PackedProjection(torch.cat(weights)), [len(weight) for weight in weights])


def shared(whole: nn.Module, sizes: list[int]) -> list[nn.Module]:
    """Projections of the same input that are one product, ``whole``: one for each size of output."""
    return [whole] if len(sizes) == 1 else [_Slice(whole, sizes, i) for i in range(len(sizes))]


def steady(projection: PackedProjection) -> bool:
    """Measure whether a row's bits really do not depend on the rows around it, on this machine."""
    x = _sample(projection.inputs)
    y = projection(x)
    return all(
        bool((projection(x[at : at + n]) == y[at : at + n]).all())
        for at, n in ((0, 1), (3, 2), (1, 8), (2, 33), (66, 1))
    )


def _sample(width: int) -> Tensor:
    """67 rows of numbers without a pattern that a sum could hide: ``[67, width]``."""
    return torch.linspace(1, 67 * width, 67 * width).square().sin().view(67, width)


def _multiplied(rows: Tensor, weight: Tensor) -> Tensor:
    return F.linear(rows, weight) if _REORDER is None else _ONEDNN(rows, weight, None, "none", [], "")


class Int8Projection(nn.Module):
    """``Projection`` with weights of one byte: each output's row is rounded to 127 steps of its own scale.

    For inference only. Activations are rounded to bf16 on the way in, so this pays on CPUs with bf16
    instructions. Dettmers et al., 2208.07339 §2.1 (row-wise absolute-maximum rounding).
    """

    weight_int8: Tensor
    scale_bf16: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        # the scale is rounded before it is used, so that its own rounding costs nothing
        scale = (
            (weight.abs().amax(dim=1, keepdim=True) / 127)
            .clamp_min(torch.finfo(torch.bfloat16).tiny)
            .bfloat16()
        )
        steps = (weight / scale.float()).round().clamp(-127, 127)
        self.register_buffer("weight_int8", steps.to(torch.int8))
        self.register_buffer("scale_bf16", scale[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the transposed weight."""
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        if len(rows) <= _FEW_ROWS:
            y = torch._weight_int8pack_mm(rows, self.weight_int8, self.scale_bf16)
        else:
            y = F.linear(rows, self.weight_int8.bfloat16()) * self.scale_bf16
        return y.to(x.dtype).view(*x.shape[:-1], -1)
