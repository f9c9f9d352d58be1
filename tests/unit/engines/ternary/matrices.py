"""Matrices of trits, with planes and groups, and int8 tables."""

from __future__ import annotations

import torch
from torch import Tensor

from sharedllm.engines.ternary import Runs, runs_of_each, runs_of_table
from sharedllm.store.ternary import SteppedTensor, TernaryTensor, ternarise, two_planes

# outputs, inputs, inputs of a group, planes: multiples of nothing, of 32, of 128, and longer than one block
SHAPES = [
    (5, 1, None, 1),
    (6, 33, 11, 2),
    (67, 96, 32, 1),
    (24, 576, 64, 2),
    (9, 160, None, 2),
    (3, 4500, None, 1),
]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trits(outputs: int, inputs: int, group: int | None = None, planes: int = 1) -> TernaryTensor:
    weight = drawn(outputs, inputs)
    if planes == 1:
        return TernaryTensor.of(ternarise(weight, scale="optimal", group=group))
    return TernaryTensor.of(*two_planes(weight, group=group))


def table(outputs: int, inputs: int) -> SteppedTensor:
    return SteppedTensor.of(drawn(outputs, inputs), bits=8)


def every_kind() -> list[tuple[str, Runs, Tensor]]:
    """A name, the runs, and the weights that they stand for."""
    kinds = []
    for shape in SHAPES:
        weight = trits(*shape)
        kinds.append((f"trits {shape}", runs_of_each(weight)[0], weight.restored()))
    for outputs, inputs in ((7, 64), (130, 45), (3, 2100)):
        whole = table(outputs, inputs)
        kinds.append((f"int8 {outputs, inputs}", runs_of_table(whole), whole.restored()))
    return kinds
