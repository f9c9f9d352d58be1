"""Tensors as a ternary file holds them: trits with scales, or steps of four or eight bits with scales.

*Covered*: lengths, types and shapes that don't belong together, scales that are NaN or infinite. *Not
covered*: whether the numbers are the right ones; the file's hashes say that.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor

from sharedllm.errors import BadModelFile
from sharedllm.store.ternary import rounding, trits

__all__ = ["SteppedTensor", "TernaryTensor"]

_STEPS = {8: 127, 4: 7}


@dataclasses.dataclass(frozen=True)
class TernaryTensor:
    """A weight of ``shape`` [X…, O, I]: packed ``trits`` (uint8 [P, ⌈n/5⌉]), fp16 ``scales`` [P, X…, O, G].

    P planes are added up; I / G inputs share a scale. Raises ``BadModelFile`` if the parts don't fit, or a
    byte is no five trits: whoever computes with the bytes themselves may rely on it.
    """

    trits: Tensor
    scales: Tensor
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) < 2 or min(self.shape) < 1:
            raise BadModelFile(f"{self.shape} is not the shape of a matrix or of a stack of matrices.")
        planes, n = self.planes, math.prod(self.shape)
        if planes not in (1, 2) or self.trits.shape != (planes, trits.packed_bytes(n)):
            raise BadModelFile(
                f"Packed trits have the shape {tuple(self.trits.shape)}; a weight of the shape {self.shape} "
                f"has one or two planes of {trits.packed_bytes(n):,} bytes. The model is damaged, fetch it "
                "again."
            )
        for packed in self.trits:
            trits.refuse_foreign(packed, n)
        _refuse_scales(self.scales, (planes, *self.shape[:-1]), self.shape[-1])

    @classmethod
    def of(cls, *planes: tuple[Tensor, Tensor]) -> TernaryTensor:
        """Pack what ``ternarise`` or ``two_planes`` gave: one or two pairs of trits and scales.

        Raises ``BadModelFile`` for scales that fp16 does not hold.
        """
        scales = torch.stack([scales for _, scales in planes]).cpu()
        if not torch.equal(scales.half().to(scales.dtype), scales):
            raise BadModelFile("The scales are not numbers that fp16 holds; round them to fp16 first.")
        packed = torch.stack([trits.pack(each.cpu()) for each, _ in planes])
        return cls(packed, scales.half(), tuple(planes[0][0].shape))

    @property
    def planes(self) -> int:
        return len(self.trits)

    def unpacked(self) -> Tensor:
        """The trits as int8 ``[P, X…, O, I]``."""
        n = math.prod(self.shape)
        return torch.stack([trits.unpack(packed, n).view(self.shape) for packed in self.trits])

    def restored(self) -> Tensor:
        """The weights in fp32, planes added up in order."""
        parts = [rounding.restored(*plane) for plane in zip(self.unpacked(), self.scales, strict=True)]
        return parts[0] if len(parts) == 1 else parts[0].add_(parts[1])


@dataclasses.dataclass(frozen=True)
class SteppedTensor:
    """A weight of ``shape`` [O, I]: ``steps`` of 8 or 4 bits, fp16 ``scales`` [O, G]; weight = step · scale.

    ``steps`` is int8 ``[O, I]``, or uint8 ``[⌈n/2⌉]`` with two steps + 8 to a byte, the first one lowest.
    """

    steps: Tensor
    scales: Tensor
    shape: tuple[int, ...]
    bits: Literal[4, 8]

    def __post_init__(self) -> None:
        expected = self.shape if self.bits == 8 else (-(-math.prod(self.shape) // 2),)
        kind = torch.int8 if self.bits == 8 else torch.uint8
        whole = len(self.shape) == 2 and min(self.shape) > 0
        if not whole or self.steps.shape != expected or self.steps.dtype != kind:
            raise BadModelFile(
                f"Steps of {self.bits} bits are {self.steps.dtype} of the shape {tuple(self.steps.shape)}, "
                f"which does not fit a table of the shape {self.shape}. The model is damaged, fetch it again."
            )
        _refuse_scales(self.scales, self.shape[:-1], self.shape[-1])

    @classmethod
    @torch.no_grad()
    def of(cls, weight_OI: Tensor, *, bits: Literal[4, 8], group: int | None = None) -> SteppedTensor:
        """Round to 127 (or 7) steps of the largest magnitude in each row, or group of inputs.

        Raises ``BadModelFile`` for NaN and for magnitudes beyond fp16, ``ValueError`` for a group that does
        not divide a row.
        """
        grouped_OGJ = rounding.grouped(weight_OI.detach().cpu().float(), group)
        scales_OG = rounding.fit_for_fp16(grouped_OGJ.abs().amax(-1) / _STEPS[bits])
        scales_OG1 = scales_OG[..., None]
        most = _STEPS[bits]
        steps = torch.where(scales_OG1 > 0, grouped_OGJ / scales_OG1, 0.0).round_().clamp_(-most, most)
        steps = steps.to(torch.int8).view(weight_OI.shape)
        return cls(steps if bits == 8 else _nibbles(steps), scales_OG.half(), tuple(weight_OI.shape), bits)

    def restored(self) -> Tensor:
        """The weights in fp32."""
        steps = self.steps if self.bits == 8 else _steps(self.steps, self.shape)
        return rounding.restored(steps, self.scales)


def _refuse_scales(scales: Tensor, rows: tuple[int, ...], inputs: int) -> None:
    groups = scales.shape[-1] if scales.dim() else 0
    if scales.shape != (*rows, groups) or not groups or inputs % groups:
        raise BadModelFile(
            f"Scales have the shape {tuple(scales.shape)}, which does not fit rows {rows} of {inputs} "
            "inputs. The model is damaged, fetch it again."
        )
    if scales.dtype != torch.float16 or not bool(scales.isfinite().all()):
        raise BadModelFile(
            "Scales hold NaN or infinity, or are not fp16; the model is damaged, fetch it again."
        )


def _nibbles(steps: Tensor) -> Tensor:
    flat = torch.full((-(-steps.numel() // 2) * 2,), 8, dtype=torch.uint8)
    flat[: steps.numel()] = (steps.reshape(-1) + 8).view(torch.uint8)
    return flat[0::2] | (flat[1::2] << 4)


def _steps(nibbles: Tensor, shape: tuple[int, ...]) -> Tensor:
    pairs = torch.stack([nibbles & 15, nibbles >> 4], dim=1).view(-1)
    return (pairs[: math.prod(shape)].view(torch.int8) - 8).view(shape)
