"""Noise on hidden states is as large as it says, repeats by seed, and is nothing at zero."""

from __future__ import annotations

import pytest
import torch

from sharedllm.bets.disturbance import disturbed_nats, noisy
from sharedllm.model import Config, Transformer, token_nats

TOKENS = [1, 2, 3, 4, 5, 6, 7]


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(Config(50, 24, 2, 2, 1, 12, 20)).eval()


def test_noise_of_zero_changes_nothing(model: Transformer) -> None:
    plain = token_nats(model, torch.tensor([TOKENS]))[0].tolist()
    assert disturbed_nats(model, TOKENS, noisy(0.0, 0)) == pytest.approx(plain, abs=1e-6)


def test_noise_has_the_share_of_the_root_mean_square_that_was_asked() -> None:
    h_BTD = torch.randn(1, 200, 100) * 7
    added = noisy(0.1, 0)(h_BTD) - h_BTD
    share = added.square().mean().sqrt() / h_BTD.square().mean().sqrt()
    assert float(share) == pytest.approx(0.1, rel=0.02)


def test_a_seed_gives_the_same_noise_again(model: Transformer) -> None:
    first, again, other = (disturbed_nats(model, TOKENS, noisy(0.5, seed)) for seed in (1, 1, 2))
    assert first == again != other
