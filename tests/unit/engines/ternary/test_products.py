"""Products with packed weights: right, exact, and the same bits whoever computes them, and beside whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sharedllm.engines.ternary import (
    INSTRUCTIONS,
    CompiledProjection,
    RestoredProjection,
    Runs,
    joined,
    kernel,
    products,
    runs_of_each,
)
from sharedllm.store.ternary import TernaryTensor, ternarise
from tests.unit.engines.ternary.matrices import drawn, every_kind, trits

KINDS = every_kind()
Product = CompiledProjection | RestoredProjection
Making = Callable[[Runs], Product]


@pytest.fixture(params=["restored", *INSTRUCTIONS])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Making:
    """Every way to multiply that this machine has."""
    if request.param == "restored":
        return RestoredProjection
    best = kernel()
    wanted = INSTRUCTIONS.index(request.param)
    if wanted > best.instructions:
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setattr(products, "kernel", lambda: dataclasses.replace(best, instructions=wanted))
    return CompiledProjection


@pytest.fixture(params=KINDS, ids=[name for name, _, _ in KINDS])
def kind(request: pytest.FixtureRequest) -> tuple[Runs, Tensor]:
    _, runs, weight = request.param
    return runs, weight


def test_it_multiplies_by_the_transposed_weight(make: Making, kind: tuple[Runs, Tensor]) -> None:
    runs, weight = kind
    x = drawn(5, runs.inputs, seed=1)
    with torch.inference_mode():
        y = make(runs)(x)
    # an activation is half a step off at most, a step being the row's largest ÷ 16,256
    bound = (x.abs().amax(1, keepdim=True) / 16256 / 2) * weight.abs().sum(1) + 1e-5 * (
        x.abs() @ weight.abs().T
    )
    assert bool(((y - x @ weight.T).abs() <= bound).all())


def test_every_way_to_multiply_gives_the_same_bits(make: Making, kind: tuple[Runs, Tensor]) -> None:
    runs, _ = kind
    x = drawn(7, runs.inputs, seed=2) * torch.logspace(-6, 6, 7)[:, None]
    with torch.inference_mode():
        assert torch.equal(make(runs)(x), RestoredProjection(runs)(x))


def test_a_row_has_the_same_bits_in_any_company(make: Making, kind: tuple[Runs, Tensor]) -> None:
    product, x = make(kind[0]), drawn(67, kind[0].inputs, seed=3)
    with torch.inference_mode():
        together = product(x)
        for start, stop in ((0, 1), (3, 5), (1, 9), (2, 35), (66, 67)):
            assert torch.equal(product(x[start:stop]), together[start:stop])


def test_threads_change_no_bit(make: Making) -> None:
    product, x = make(runs_of_each(trits(515, 640))[0]), drawn(9, 640)
    found = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        with torch.inference_mode():
            found.append(product(x))
    assert all(torch.equal(each, found[0]) for each in found)


def test_no_rows_are_no_rows(make: Making) -> None:
    with torch.inference_mode():
        assert make(runs_of_each(trits(5, 40))[0])(torch.empty(0, 40)).shape == (0, 5)


def test_leading_dimensions_stay(make: Making) -> None:
    product, x = make(runs_of_each(trits(5, 40))[0]), drawn(2, 3, 40)
    with torch.inference_mode():
        assert torch.equal(product(x).view(6, 5), product(x.view(6, 40)))


def test_rows_that_are_a_view_are_read_as_they_look(make: Making) -> None:
    product, wide = make(runs_of_each(trits(5, 40))[0]), drawn(3, 80)
    with torch.inference_mode():
        assert torch.equal(product(wide[:, ::2]), product(wide[:, ::2].clone()))


@pytest.mark.parametrize("shape", [(41,), (2, 39), (2, 80), ()], ids=str)
def test_rows_of_another_length_are_refused(make: Making, shape: tuple[int, ...]) -> None:
    product = make(runs_of_each(trits(5, 40))[0])
    with pytest.raises(ValueError, match="Rows of 40 numbers are multiplied here, not a tensor of"):
        product(torch.zeros(shape))


@pytest.mark.parametrize("strange", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_spoils_its_own_row_alone(make: Making, strange: float) -> None:
    product, x = make(runs_of_each(trits(5, 40))[0]), drawn(3, 40)
    with torch.inference_mode():
        clean = product(x)
        x[1, 7] = strange
        y = product(x)
    assert bool(y[1].isnan().all())
    assert torch.equal(y[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38, 1e-27])
def test_rows_too_small_for_steps_are_zeros(make: Making, size: float) -> None:
    with torch.inference_mode():
        y = make(runs_of_each(trits(5, 40))[0])(torch.full((2, 40), size))
    assert not y.any()


def test_the_largest_numbers_have_steps(make: Making) -> None:
    x = torch.tensor([[3e38, -3e38, 1.5e38, 0.0]])
    runs = runs_of_each(TernaryTensor.of((torch.eye(4, dtype=torch.int8), torch.ones(4, 1))))[0]
    with torch.inference_mode():
        torch.testing.assert_close(make(runs)(x), x, rtol=1e-4, atol=0)


def test_matrices_of_one_input_are_one_product(make: Making) -> None:
    parts = [runs_of_each(trits(outputs, 96, 32, 2))[0] for outputs in (12, 5, 30)]
    x = drawn(4, 96)
    with torch.inference_mode():
        apart = torch.cat([make(runs)(x) for runs in parts], dim=1)
        assert torch.equal(make(joined(parts))(x), apart)


def test_a_stack_of_matrices_is_one_after_the_other() -> None:
    stack = TernaryTensor.of(ternarise(drawn(3, 8, 64), scale="median", group=16))
    x = drawn(2, 64)
    with torch.inference_mode():
        for runs, weight in zip(runs_of_each(stack), stack.restored(), strict=True):
            torch.testing.assert_close(RestoredProjection(runs)(x), x @ weight.T, rtol=1e-3, atol=1e-2)


def test_trits_take_two_bits() -> None:
    assert CompiledProjection(runs_of_each(trits(24, 576))[0]).weights.nbytes == 24 * 576 // 4


def test_numbers_that_are_no_trits_are_refused() -> None:
    runs = runs_of_each(trits(5, 40))[0]
    runs.steps_OKJ[3, 0, 17] = 2
    with pytest.raises(ValueError, match="A trit is -1, 0 or 1"):
        CompiledProjection(runs)
