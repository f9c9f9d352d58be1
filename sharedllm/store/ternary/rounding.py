"""From numbers to trits and scales: each number becomes −s, 0 or s, whichever is nearest.

What differs is the scale ``s`` of a row (or of a group of its inputs): the mean of the magnitudes (BitNet
b1.58, 2402.17764 §2), their median, which small models bear better (2407.09527 §3), or the one with the least
squared error. Scales are numbers that fp16 holds, so that a file's weights are these weights, bit for bit.

*Covered*: rows of zeros, magnitudes that fp16 can't hold. *Not covered*: what rounding does to a model that
was not trained for it: it destroys it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sharedllm.errors import BadModelFile

__all__ = ["Scale", "exact", "fit_for_fp16", "grouped", "restored", "ternarise", "two_planes"]

Scale = Literal["mean", "median", "optimal"]


@torch.no_grad()
def ternarise(weight_XOI: Tensor, *, scale: Scale, group: int | None = None) -> tuple[Tensor, Tensor]:
    """Round a matrix, or a stack of them, to ``trits_XOI`` (int8) and ``scales_XOG`` (fp32, fit for fp16).

    One scale per output row, or with ``group`` one for each so many inputs of it. Raises ``BadModelFile`` for
    NaN and for magnitudes beyond fp16, ``ValueError`` for an unknown rule or a group that does not divide a
    row.
    """
    weight_XOI = weight_XOI.detach().float()
    grouped_XOGJ = grouped(weight_XOI, group)
    scales_XOG = fit_for_fp16(_scales(grouped_XOGJ.abs(), scale))
    scales_XOG1 = scales_XOG[..., None]
    steps_XOGJ = torch.where(scales_XOG1 > 0, grouped_XOGJ / scales_XOG1, 0.0).round_().clamp_(-1, 1)
    return steps_XOGJ.to(torch.int8).view(weight_XOI.shape), scales_XOG


@torch.no_grad()
def two_planes(
    weight_XOI: Tensor, *, scale: Scale = "optimal", group: int | None = None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Round twice, the second time what the first left over: ``W ≈ s₁ T₁ + s₂ T₂``; see ``ternarise``."""
    first = ternarise(weight_XOI, scale=scale, group=group)
    left_XOI = weight_XOI.detach().float() - restored(*first)
    return first, ternarise(left_XOI, scale=scale, group=group)


def restored(trits_XOI: Tensor, scales_XOG: Tensor) -> Tensor:
    """The fp32 weights that trits and scales stand for, each exactly −s, 0 or s."""
    # a tensor of its own, so that it may be multiplied in place: half the memory traffic
    weight_XOI = trits_XOI.to(torch.float32, copy=True).contiguous()
    weight_XOI.view(*trits_XOI.shape[:-1], scales_XOG.shape[-1], -1).mul_(scales_XOG.float()[..., None])
    return weight_XOI


@torch.no_grad()
def exact(weight_XOI: Tensor, *, group: int | None = None) -> tuple[Tensor, Tensor]:
    """The trits and scales of weights that are ternary already, such as ``restored`` gives.

    Raises ``BadModelFile`` if a row (or group) holds two magnitudes, or one that fp16 does not hold.
    """
    weight_XOI = weight_XOI.detach().float()
    scales_XOG = grouped(weight_XOI, group).abs().amax(-1)
    trits_XOI = weight_XOI.sign().to(torch.int8)
    fits = torch.equal(scales_XOG, scales_XOG.half().float())
    if not fits or not torch.equal(restored(trits_XOI, scales_XOG), weight_XOI):
        raise BadModelFile(
            "These weights are not ternary: a row holds more than one magnitude, or one that fp16 does not "
            "hold. Train with ternary weights, or round them first."
        )
    return trits_XOI, scales_XOG


def grouped(weight_XOI: Tensor, group: int | None) -> Tensor:
    """A row's inputs group by group: ``[…, O, G, J]``. Raises ``ValueError`` if groups don't divide a row."""
    inputs = weight_XOI.shape[-1]
    size = inputs if group is None else group
    if not 1 <= size <= inputs or inputs % size:
        raise ValueError(f"A group of {group} inputs does not divide rows of {inputs}; give a divisor.")
    return weight_XOI.reshape(*weight_XOI.shape[:-1], inputs // size, size)


def _scales(magnitudes_XOGJ: Tensor, scale: Scale) -> Tensor:
    if scale == "mean":
        return magnitudes_XOGJ.mean(-1)
    if scale == "median":
        return magnitudes_XOGJ.median(-1).values
    if scale == "optimal":
        return _optimal(magnitudes_XOGJ)
    raise ValueError(f"There is no scale {scale!r}; there are mean, median and optimal.")


def _optimal(magnitudes_XOGJ: Tensor) -> Tensor:
    """The scale of least squared error: keeping the k largest, their mean removes (Σ of them)² / k.

    Every k is tried; Li et al., 1605.04711 §3.1, choose it by a rule of thumb.
    """
    sums = magnitudes_XOGJ.sort(-1, descending=True).values.double().cumsum(-1)
    kept = torch.arange(1, sums.shape[-1] + 1, dtype=torch.float64, device=sums.device)
    best = (sums.square() / kept).argmax(-1, keepdim=True)
    return (sums.gather(-1, best) / kept[best]).squeeze(-1).float()


def fit_for_fp16(scales: Tensor) -> Tensor:
    """Scales rounded to what fp16 holds, in fp32. Raises ``BadModelFile`` for NaN and what is beyond it."""
    fitted = scales.half().float()
    if not bool(fitted.isfinite().all()):
        raise BadModelFile(
            "These weights hold NaN, or numbers beyond what fp16 holds, so they have no scales; the model is "
            "damaged, fetch or train it again."
        )
    return fitted
