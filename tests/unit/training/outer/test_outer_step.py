"""The outer step, beside torch's SGD and beside arithmetic."""

from __future__ import annotations

import pytest
import torch

from sharedllm.errors import BadRecipe
from sharedllm.training.outer import Outer, put_weights, weights_of


def test_it_moves_as_nesterov_momentum_does_in_torch() -> None:
    weights = torch.nn.Parameter(torch.randn(50, generator=torch.Generator().manual_seed(0)))
    ours_P, outer = weights.detach().clone(), Outer(0.7, 0.9)
    theirs = torch.optim.SGD([weights], lr=0.7, momentum=0.9, nesterov=True)
    for seed in range(5):
        weights.grad = torch.randn(50, generator=torch.Generator().manual_seed(seed + 1))
        ours_P = outer.step(ours_P, weights.grad)
        theirs.step()
    assert torch.allclose(ours_P, weights, rtol=1e-5, atol=1e-5)


def test_plain_averaging_of_an_exact_update_gives_the_local_weights_bit_for_bit() -> None:
    draw = torch.Generator().manual_seed(0)
    start_P = (torch.rand(10_000, generator=draw) + 1) * torch.logspace(-12, 3, 10_000)
    local_P = -(torch.rand(10_000, generator=draw) + 1) * torch.logspace(3, -3, 10_000)
    assert torch.equal(Outer(1.0, 0.0).step(start_P, start_P.double() - local_P.double()), local_P)


def test_a_step_changes_neither_weights_nor_update() -> None:
    weights_P, update_P = torch.ones(3), torch.ones(3)
    Outer().step(weights_P, update_P)
    assert torch.equal(weights_P, torch.ones(3))
    assert torch.equal(update_P, torch.ones(3))


def test_the_first_momentum_is_a_copy_of_the_update() -> None:
    outer, update_P = Outer(), torch.ones(3)
    outer.step(torch.zeros(3), update_P)
    update_P.zero_()
    assert outer.momentum_P is not None
    assert torch.equal(outer.momentum_P, torch.ones(3))


@pytest.mark.parametrize(("lr", "momentum"), [(0.0, 0.9), (-1.0, 0.0), (0.7, 1.0), (0.7, -0.1)])
def test_rates_that_make_no_sense_are_refused(lr: float, momentum: float) -> None:
    with pytest.raises(BadRecipe, match="An outer step has"):
        Outer(lr, momentum)


def test_weights_survive_the_way_into_a_vector_and_back() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    weights_P = weights_of(model)
    put_weights(model, torch.zeros_like(weights_P))
    put_weights(model, weights_P)
    assert torch.equal(weights_of(model), weights_P)


def test_a_models_weights_are_not_tied_to_the_vector_they_came_from() -> None:
    model = torch.nn.Linear(3, 4)
    weights_P = torch.ones(16)
    put_weights(model, weights_P)
    weights_P.zero_()
    assert torch.equal(weights_of(model), torch.ones(16))


def test_a_vector_of_another_length_does_not_fill_a_model() -> None:
    with pytest.raises(ValueError, match="does not fill 16 weights"):
        put_weights(torch.nn.Linear(3, 4), torch.zeros(15))
