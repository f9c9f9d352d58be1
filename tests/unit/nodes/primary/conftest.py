"""A tiny random model, and a federation of three nodes in threads that serves it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sharedllm.model import Tokenizer, Transformer
from tests.unit.nodes.primary.threads import CONFIG, Place, place, tiny_tokenizer


@pytest.fixture(scope="session")
def tiny() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(CONFIG).eval()
    with torch.no_grad():
        model.embed.weight.mul_(20)
        for gain in model.gains().values():
            gain.uniform_(0.5, 1.5)
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tiny_tokenizer()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def ring(tiny: Transformer, tokenizer: Tokenizer) -> Iterator[Place]:
    """Three nodes; the first two are in the pipeline, and nothing turns until the test says so."""
    with place(tiny, tokenizer) as made:
        yield made
