"""A model of a few thousand weights and a made-up language: every path of training, in seconds.

They suffice because the loop, the optimisers and the checkpoints know nothing of size or of English.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sharedllm.model import Config, Transformer
from sharedllm.training import Recipe, Streams

TINY_CONFIG = Config(
    vocab_size=64, width=32, layers=2, heads=2, kv_heads=1, head_width=16, hidden=32, experts=4, context=32
)
TINY = Recipe(
    name="tiny",
    optimizer="muon",
    lr=0.02,
    adamw_lr=1e-2,
    weight_decay=0.0,
    warmup=0.1,
    decay=0.5,
    clip=1.0,
    balance=0.01,
    batch=8,
    window=32,
    tokens=8 * 32 * 12,
    checkpoint_steps=4,
)


def tiny_model(seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(TINY_CONFIG)


def counting(length: int = 4_000, stride: int = 1) -> torch.Tensor:
    """A stream in which each token follows from the one before, with a little noise."""
    chance = torch.Generator().manual_seed(stride)
    tokens = (torch.arange(length) * stride) % 64
    noisy = torch.rand(length, generator=chance) < 0.1
    tokens[noisy] = torch.randint(64, (int(noisy.sum()),), generator=chance)
    return tokens


def counted() -> Streams:
    return Streams({"up": counting(), "threes": counting(2_000, 3)})


@pytest.fixture
def recipe() -> Recipe:
    return TINY


@pytest.fixture
def new_model() -> Callable[..., Transformer]:
    return tiny_model


@pytest.fixture
def new_stream() -> Callable[..., torch.Tensor]:
    return counting


@pytest.fixture
def streams() -> Streams:
    return counted()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
