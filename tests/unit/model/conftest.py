"""Small random models: every path of the code, in milliseconds. Their weights mean nothing."""

from __future__ import annotations

import pytest
import torch

from sharedllm.model import Config, Tokenizer, Transformer, train_tokenizer

CONFIGS = {
    "dense": Config(
        vocab_size=320, width=48, layers=3, heads=6, kv_heads=2, head_width=8, hidden=64, context=64
    ),
    "moe": Config(
        vocab_size=320,
        width=32,
        layers=3,
        heads=4,
        kv_heads=4,
        head_width=8,
        hidden=24,
        experts=4,
        context=64,
    ),
    "untied": Config(
        vocab_size=320,
        width=48,
        layers=2,
        heads=3,
        kv_heads=3,
        head_width=20,
        hidden=56,
        rope_base=500.0,
        context=64,
        tied_head=False,
    ),
}


def small_model(kind: str, seed: int = 0) -> Transformer:
    """A model whose gains and embedding are not near their starting point, so that each of them matters."""
    torch.manual_seed(seed)
    model = Transformer(CONFIGS[kind]).eval()
    with torch.no_grad():
        model.embed.weight.mul_(20)
        for gain in model.gains().values():
            gain.uniform_(0.5, 1.5)
    return model


@pytest.fixture(params=list(CONFIGS))
def model(request: pytest.FixtureRequest) -> Transformer:
    return small_model(request.param)


@pytest.fixture
def dense() -> Transformer:
    return small_model("dense")


@pytest.fixture
def moe() -> Transformer:
    return small_model("moe")


@pytest.fixture
def untied() -> Transformer:
    return small_model("untied")


@pytest.fixture(scope="session")
def smollm2() -> tuple[Transformer, Tokenizer]:
    """The pretrained model, for slow tests."""
    from sharedllm import store

    loaded = store.load("smollm2-135m")
    return loaded.model, loaded.tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cat sat on the mat and the dog sat on the cat"] * 4, 320)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
