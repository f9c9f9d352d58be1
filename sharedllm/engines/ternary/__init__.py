"""Ternary models at work: their matrices stay at 2 bits a weight, from the file to the processor.

``opened_span`` and ``opened_head`` read a model's file into modules that take the place of plain projections.
They multiply by a kernel that is compiled when it is first needed; where no compiler is, the same bits come
from fp32 products. There is no switch: two workers of one pipeline that computed differently would break what
engines promise, that a token's bits don't depend on who computes them.

What must not happen here: choosing trits, restoring whole matrices, anything that depends on the batch.
Bets that rest on it: none yet.
"""

from sharedllm.engines.ternary.compiled import INSTRUCTIONS, Kernel, kernel
from sharedllm.engines.ternary.products import CompiledProjection, RestoredProjection, projection
from sharedllm.engines.ternary.runs import Runs, joined, runs_of_each, runs_of_table
from sharedllm.engines.ternary.span import opened_head, opened_span

__all__ = [
    "INSTRUCTIONS",
    "CompiledProjection",
    "Kernel",
    "RestoredProjection",
    "Runs",
    "joined",
    "kernel",
    "opened_head",
    "opened_span",
    "projection",
    "runs_of_each",
    "runs_of_table",
]
