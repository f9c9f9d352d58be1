"""Models of every kind, built once: nobody changes their weights."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch

from sharedllm.engines import Stage
from sharedllm.model import Transformer
from tests.unit.engines.toys import CONFIGS, stage, toy


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Start with one thread, and leave their number as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def whole(kind: str) -> tuple[Transformer, Stage]:
    model = toy(kind)
    return model, stage(model, 0, model.config.layers)


@pytest.fixture(params=list(CONFIGS))
def served(request: pytest.FixtureRequest) -> tuple[Transformer, Stage]:
    """A model, and all of its layers as a stage."""
    return whole(request.param)
