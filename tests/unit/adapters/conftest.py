"""Small random bases, dense and with experts; their gains differ from 1, as a pretrained base's do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from sharedllm.model.config import Config
from sharedllm.model.transformer import Transformer
from sharedllm.store import Loaded, Manifest


def small_base(experts: int) -> Loaded:
    torch.manual_seed(experts)
    config = Config(
        vocab_size=61,
        width=16,
        layers=2,
        heads=4,
        kv_heads=2,
        head_width=4,
        hidden=24,
        experts=experts,
        context=64,
        tied_head=experts == 0,
    )
    model = Transformer(config).eval()
    with torch.no_grad():
        for gain in model.gains().values():
            gain.uniform_(0.5, 1.5)
        model.embed.weight.mul_(20)  # fresh tied logits are all near 0, and no gain could change that
    manifest = Manifest("small", config, "t" * 64, f"{experts}" * 64, {}, "F32", "none", {})
    # no fit looks at the tokenizer
    return Loaded(model, None, manifest)  # type: ignore[arg-type]


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(params=[0, 4], ids=["dense", "experts"])
def base(request) -> Loaded:
    return small_base(request.param)


@pytest.fixture
def dense() -> Loaded:
    return small_base(0)


def habit() -> Tensor:
    """A user with a habit: every token is the one before plus 7, or plus 8."""
    generator = torch.Generator().manual_seed(5)
    return (torch.arange(400) * 7 + torch.randint(2, (400,), generator=generator).cumsum(0)) % 61


@pytest.fixture(name="text_T")
def text() -> Tensor:
    return habit()
