"""How far two models' predictions are apart is nothing for a model and itself, and the same both ways."""

from __future__ import annotations

import pytest
import torch

from sharedllm.bets.weights import Weights, divergence
from sharedllm.corpus import Excerpt
from sharedllm.model import Config, Transformer

EXCERPTS = [Excerpt("a", (1, 2, 3, 4, 5))]


def made(seed: int) -> tuple[Transformer, Weights]:
    torch.manual_seed(seed)
    model = Transformer(Config(50, 24, 2, 2, 1, 12, 20)).eval()
    return model, {name: parameter.data.clone() for name, parameter in model.named_parameters()}


def test_a_model_does_not_diverge_from_itself() -> None:
    model, own = made(0)
    assert divergence(model, own, own, EXCERPTS) == 0


def test_divergence_is_positive_and_the_same_both_ways() -> None:
    (model, own), (_, other) = made(0), made(1)
    there, back = (divergence(model, a, b, EXCERPTS) for a, b in ((own, other), (other, own)))
    assert there > 0
    assert there == pytest.approx(back)
