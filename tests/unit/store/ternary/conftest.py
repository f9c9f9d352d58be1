"""A ternary file of the smallest model that has every part."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from sharedllm.model import Tokenizer, Transformer
from sharedllm.store import ternary
from tests.unit.store.conftest import CONFIG

EXPERTS = dataclasses.replace(CONFIG, experts=3, hidden=32, width=32, layers=1)


@pytest.fixture
def mixture() -> Transformer:
    """A model with a router, and experts in stacks."""
    torch.manual_seed(2)
    return Transformer(EXPERTS)


def written(
    path: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    weights: dict[str, ternary.Weight] | None = None,
    table: ternary.Table = "int8",
) -> Path:
    with path.open("wb") as file:
        ternary.write(
            file,
            model.config,
            tokenizer,
            weights or ternary.rounded(model.state_dict()),
            table=table,
            licence="CC0-1.0",
            provenance={"seed": 0},
        )
    return path


@pytest.fixture
def path(tmp_path: Path, mixture: Transformer, tokenizer: Tokenizer) -> Path:
    return written(tmp_path / "small.ternary", mixture, tokenizer)
