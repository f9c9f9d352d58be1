"""What holds for every product with packed weights: it is the product of integers, whoever computes it."""

from __future__ import annotations

import dataclasses
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharedllm.engines import NoKernel
from sharedllm.engines.ternary import CompiledProjection, RestoredProjection, Runs, kernel, products

STEPS = 127 * 128


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    try:
        kernel()
    except NoKernel as error:
        pytest.skip(str(error))


@st.composite
def matrices(draw: st.DrawFn, most: int) -> tuple[Tensor, int]:
    """Integers ``[outputs, planes · segments, length]`` up to ``most`` in size, and the segments."""
    outputs, planes, segments = draw(st.integers(1, 9)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    length, seed = draw(st.integers(1, 400)), draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    shape = (outputs, planes * segments, length)
    return torch.randint(-most, most + 1, shape, generator=generator, dtype=torch.int8), segments


def steps(count: int, inputs: int, seed: int) -> Tensor:
    """Rows whose numbers are whole steps, the largest of each being the last: so that nothing is rounded."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-STEPS, STEPS + 1, (count, inputs), generator=generator)
    x[:, seed % inputs] = STEPS if seed % 2 else -STEPS
    return x


@settings(deadline=None)
@given(matrices(most=1), st.integers(1, 5), st.integers(0, 1000), st.data())
def test_a_product_is_the_sum_of_integers(
    matrix: tuple[Tensor, int], count: int, seed: int, data: st.DataObject
) -> None:
    trits, segments = matrix
    outputs, planes = len(trits), trits.shape[1] // segments
    runs = Runs(trits, torch.ones(outputs, trits.shape[1]), segments, trits=True)
    x = steps(count, runs.inputs, seed)
    whole = trits.long().view(outputs, planes, -1).sum(1)
    best = kernel()
    which = dataclasses.replace(best, instructions=data.draw(st.integers(0, best.instructions)))
    with mock.patch.object(products, "kernel", return_value=which), torch.inference_mode():
        y = CompiledProjection(runs)(x.float())
    assert torch.equal(y.long(), x @ whole.T)


@settings(deadline=None)
@given(matrices(most=1) | matrices(most=127), st.integers(1, 5), st.integers(0, 1000), st.data())
def test_a_row_s_bits_depend_on_nothing_but_itself(
    matrix: tuple[Tensor, int], count: int, seed: int, data: st.DataObject
) -> None:
    whole, segments = matrix
    generator = torch.Generator().manual_seed(seed)
    scales = torch.rand(*whole.shape[:2], generator=generator)
    runs = Runs(whole, scales, segments, trits=bool((whole.abs() <= 1).all()))
    x = torch.randn(count, runs.inputs, generator=generator)
    row, threads = data.draw(st.integers(0, count - 1)), data.draw(st.integers(1, 3))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            alone = RestoredProjection(runs)(x[row : row + 1])
            assert torch.equal(CompiledProjection(runs)(x)[row : row + 1], alone)
    finally:
        torch.set_num_threads(before)
