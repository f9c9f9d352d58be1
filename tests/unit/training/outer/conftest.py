"""Joint training of the tiny model, light enough to be simulated dozens of times."""

from __future__ import annotations

import dataclasses

import pytest

from sharedllm.training import Recipe


@pytest.fixture
def light(recipe: Recipe) -> Recipe:
    """Six steps of AdamW on 32 tokens each."""
    return dataclasses.replace(
        recipe, optimizer="adamw", lr=1e-2, batch=2, window=16, tokens=6 * 32, balance=0.0
    )
