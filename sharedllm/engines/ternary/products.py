"""Matrix products with weights that stay packed, and the same sums in fp32 where they can't be.

An activation becomes one of 16,256 steps of its row's largest, on either side of zero, so that products are
sums of integers. That costs 0.0001 ± 0.0001 nats per token on SmolLM2-135M; 127 steps, as int8 kernels take,
cost 0.04 (measured on 3,577 tokens of drama and code: all products and the head). Sums of integers are exact
in any order, and floats are combined in one order. So a row has the same bits in any company, with any number
of threads, on any processor, and with or without a compiler.

*Covered*: rows that hold what is no number (all of their outputs are NaN), planes, groups, int8 tables. *Not
covered*: rows whose largest magnitude is below 2e-26 count as zeros; gradients.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from sharedllm.engines.errors import NoKernel
from sharedllm.engines.ternary.compiled import kernel
from sharedllm.engines.ternary.runs import Runs
from sharedllm.model import PackedProjection

__all__ = ["CompiledProjection", "RestoredProjection", "projection"]

_STEPS = 127.0 * 128.0
_SMALLEST = 1e-30  # of a scale: its inverse, times a number of the row, is still a number
_UNIT = 32  # weights; the kernel reads no fewer
_log = logging.getLogger(__name__)


def projection(runs: Runs) -> CompiledProjection | RestoredProjection:
    """Make the product with a matrix, packed if the kernel can be had; says so once if it can't."""
    try:
        return CompiledProjection(runs)
    except NoKernel as error:
        _say(str(error))
        return RestoredProjection(runs)


class CompiledProjection(nn.Module):
    """``x[…, in] → y[…, out]`` by the kernel: trits at 2 bits, or int8, and never anything larger in memory.

    Raises ``NoKernel`` when it is made where the kernel can't be had, ``ValueError`` for another number of
    inputs.
    """

    weights: Tensor
    scales_OK: Tensor

    def __init__(self, runs: Runs) -> None:
        super().__init__()
        self._kernel = kernel()
        self.outputs, self.inputs, self.bits = runs.outputs, runs.inputs, 2 if runs.trits else 8
        _, count, length = runs.steps_OKJ.shape
        self._layout = (runs.outputs, count // runs.segments, runs.segments, length, self.bits)
        padded = -(-length // _UNIT) * _UNIT
        steps = runs.steps_OKJ.contiguous()
        if runs.trits:
            packed = torch.empty(runs.outputs * count * padded // 4, dtype=torch.uint8)
            if self._kernel.lay_out(steps.data_ptr(), runs.outputs * count, length, packed.data_ptr()):
                raise ValueError("A trit is -1, 0 or 1; there are other numbers among these.")
        else:
            packed = nn.functional.pad(steps, (0, padded - length)).view(torch.uint8).reshape(-1)
        self.register_buffer("weights", packed, persistent=False)
        self.register_buffer("scales_OK", runs.scales_OK.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the transposed weight, with as many threads as torch has."""
        _refuse(x, self.inputs)
        rows = x.reshape(-1, self.inputs).float().contiguous()
        y = torch.empty(len(rows), self.outputs)
        self._kernel.multiply(
            rows.data_ptr(),
            len(rows),
            self.weights.data_ptr(),
            self.scales_OK.data_ptr(),
            *self._layout,
            torch.get_num_threads(),
            self._kernel.instructions,
            y.data_ptr(),
        )
        return y.view(*x.shape[:-1], self.outputs)


class RestoredProjection(nn.Module):
    """What ``CompiledProjection`` computes, bit for bit, by products of fp32: in it such integers are exact.

    Takes sixteen times the memory, and the time of fp32.
    """

    scales_KO: Tensor

    def __init__(self, runs: Runs) -> None:
        super().__init__()
        self.outputs, self.inputs, self._segments = runs.outputs, runs.inputs, runs.segments
        self._runs = nn.ModuleList(PackedProjection(steps_OJ) for steps_OJ in runs.steps_OKJ.unbind(1))
        self.register_buffer("scales_KO", runs.scales_OK.T.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the transposed weight."""
        _refuse(x, self.inputs)
        rows = x.reshape(-1, self.inputs).float()
        limbs, scale = _rounded(rows)
        parts = limbs.chunk(self._segments, dim=-1)
        y = torch.zeros(len(rows), self.outputs)
        for k, (product, scale_O) in enumerate(zip(self._runs, self.scales_KO, strict=True)):
            high, low = product(parts[k % self._segments]).chunk(2)
            y += scale_O * (high.double() * 128 + low.double()).float()
        return (scale * y).view(*x.shape[:-1], self.outputs)


def _rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The rows' high limbs and then their low limbs in fp32, and each row's scale: as ``kernel.cpp`` does."""
    largest = rows.abs().amax(dim=-1, keepdim=True)
    scale = torch.where(largest.isfinite(), largest / torch.full_like(largest, _STEPS), torch.nan)
    steps = torch.where(scale > _SMALLEST, rows * scale.reciprocal(), 0.0).round()
    high = ((steps + 64) / 128).floor()
    return torch.cat((high, steps - high * 128)), scale


def _refuse(x: Tensor, inputs: int) -> None:
    if x.shape[-1:] != (inputs,):
        raise ValueError(f"Rows of {inputs} numbers are multiplied here, not a tensor of {tuple(x.shape)}.")


_said: set[str] = set()


def _say(sentence: str) -> None:
    if sentence not in _said:
        _said.add(sentence)
        _log.warning("%s", sentence)
