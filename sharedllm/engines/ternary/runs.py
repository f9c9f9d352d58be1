"""A matrix as runs of small integers with a scale each: what both ways of multiplying by it begin with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from sharedllm.store.ternary import SteppedTensor, TernaryTensor

__all__ = ["Runs", "joined", "runs_of_each", "runs_of_table"]

_LONGEST_INT8 = 1024  # weights: the sums of longer runs would not be exact in fp32


@dataclasses.dataclass(frozen=True)
class Runs:
    """``weight[o, i] = Σ over planes of step · scale``, with ``steps_OKJ`` int8 and ``scales_OK`` fp32.

    The K runs of a row are its segments of J inputs in order, once for each plane.
    """

    steps_OKJ: Tensor
    scales_OK: Tensor
    segments: int
    trits: bool

    @property
    def outputs(self) -> int:
        return len(self.steps_OKJ)

    @property
    def inputs(self) -> int:
        return self.segments * self.steps_OKJ.shape[-1]

    @property
    def layout(self) -> tuple[int, int, int, bool]:
        """What matrices must share to be ``joined``."""
        return (*self.steps_OKJ.shape[1:], self.segments, self.trits)


def runs_of_each(weight: TernaryTensor) -> list[Runs]:
    """The runs of a matrix, or of each in a stack. Raises ``BadModelFile`` for bytes that are no trits."""
    planes, groups, (outputs, inputs) = weight.planes, weight.scales.shape[-1], weight.shape[-2:]
    steps = weight.unpacked().view(planes, -1, outputs, groups, inputs // groups)
    scales = weight.scales.float().view(planes, -1, outputs, groups)
    return [
        Runs(
            steps_POGJ.transpose(0, 1).flatten(1, 2).contiguous(),
            scales_POG.transpose(0, 1).flatten(1, 2).contiguous(),
            groups,
            trits=True,
        )
        for steps_POGJ, scales_POG in zip(steps.unbind(1), scales.unbind(1), strict=True)
    ]


def runs_of_table(table: SteppedTensor) -> Runs:
    """The runs of an int8 table with a scale per row; long rows become several runs of the same scale."""
    inputs = table.shape[-1]
    segments = next(n for n in range(-(-inputs // _LONGEST_INT8), inputs + 1) if inputs % n == 0)
    steps_OKJ = table.steps.view(len(table.steps), segments, -1)
    return Runs(steps_OKJ, table.scales.float().expand(-1, segments).contiguous(), segments, trits=False)


def joined(many: Sequence[Runs]) -> Runs:
    """One matrix of several with the same layout, their outputs in order."""
    first = many[0]
    return Runs(
        torch.cat([runs.steps_OKJ for runs in many]),
        torch.cat([runs.scales_OK for runs in many]),
        first.segments,
        first.trits,
    )
