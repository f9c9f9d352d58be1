"""Recipes say no before a run starts; schedules have the values that the papers give."""

from __future__ import annotations

import dataclasses

import pytest

from sharedllm.errors import BadRecipe
from sharedllm.training import THIRTY_M, TOY, Recipe, factor


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"optimizer": "sgd"}, "muon or adamw"),
        ({"tokens": 10}, "at least one step"),
        ({"batch": 0}, "at least one step"),
        ({"lr": 0.0}, "not positive"),
        ({"balance": -1.0}, "not positive"),
        ({"warmup": 0.6, "decay": 0.6}, "warms up for"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadRecipe, match=sentence):
        dataclasses.replace(TOY, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("recipe", [TOY, THIRTY_M])
def test_a_budget_counts_whole_steps(recipe: Recipe) -> None:
    assert (
        recipe.steps * recipe.tokens_per_step <= recipe.tokens < (recipe.steps + 1) * recipe.tokens_per_step
    )


def test_the_schedule_rises_stays_and_falls() -> None:
    values = [factor(step, 10, warmup=0.2, decay=0.4) for step in range(10)]
    assert values == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_a_schedule_without_ends_is_constant() -> None:
    assert {factor(step, 5, warmup=0.0, decay=0.0) for step in range(5)} == {1.0}


@pytest.mark.parametrize("step", [-1, 10])
def test_a_step_outside_the_run_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match="outside a run"):
        factor(step, 10, warmup=0.1, decay=0.1)


def test_overlapping_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="shares of one run"):
        factor(0, 10, warmup=0.6, decay=0.6)
