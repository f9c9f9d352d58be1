"""Weights can be added, permuted and worn, and a base comes back as it was."""

from __future__ import annotations

import pytest
import torch

from sharedllm.bets.weights import blend, losses, permuted, wearing
from sharedllm.corpus import Excerpt
from sharedllm.model import Config, Transformer

SHAPE = {
    "vocab_size": 50,
    "width": 24,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "head_width": 12,
    "hidden": 20,
}
EXCERPTS = [Excerpt("a", (1, 2, 3, 4, 5)), Excerpt("b", (9, 8, 7))]


def model(seed: int, experts: int) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(Config(**SHAPE, experts=experts)).eval()


def weights(made: Transformer) -> dict[str, torch.Tensor]:
    return {name: parameter.data.clone() for name, parameter in made.named_parameters()}


@pytest.mark.parametrize("experts", [0, 3])
def test_a_permuted_model_computes_the_same(experts: int) -> None:
    made = model(0, experts)
    twin = permuted(weights(made), made.config, seed=1)
    assert any(not torch.equal(twin[name], weight) for name, weight in weights(made).items())
    assert losses(made, twin, EXCERPTS) == pytest.approx(losses(made, weights(made), EXCERPTS), abs=1e-5)


@pytest.mark.parametrize("experts", [0, 3])
def test_a_permuted_model_is_elsewhere(experts: int) -> None:
    made = model(0, experts)
    half = blend((0.5, weights(made)), (0.5, permuted(weights(made), made.config, seed=1)))
    assert losses(made, half, EXCERPTS) != pytest.approx(losses(made, weights(made), EXCERPTS), abs=1e-5)


def test_the_average_of_a_model_with_itself_is_itself() -> None:
    own = weights(model(0, 0))
    half = blend((0.5, own), (0.5, own))
    assert all(torch.equal(half[name], weight) for name, weight in own.items())


def test_a_model_gets_its_own_weights_back_after_an_error() -> None:
    made, other = model(0, 0), weights(model(1, 0))
    before = weights(made)
    with pytest.raises(ZeroDivisionError), wearing(made, other):
        raise ZeroDivisionError
    assert all(torch.equal(parameter, before[name]) for name, parameter in made.named_parameters())
