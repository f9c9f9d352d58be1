"""Arms are chosen by validation loss and compared by test loss, seed by seed."""

from __future__ import annotations

import dataclasses

import pytest

from sharedllm.bets.rounds import STEP, Field, Ran, arms, at_rate, chosen, difference, duel
from sharedllm.errors import BadRecipe, RunFailed
from sharedllm.training import Recipe
from sharedllm.training.outer import Plan, Point

FIELD = Field(4)
AVERAGE, NESTEROV = Plan(4, 1, outer_lr=1.0, outer_momentum=0.0), Plan(4, 1)


def run(validation_nats: float = 3.0, **test_nats: float) -> Ran:
    point = Point(8, 8, 8, validation_nats)
    return Ran((point,), point, test_nats, False, 0)


@pytest.fixture
def _shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose loss follows from their settings: averaging is better, the best rate is 0.01."""

    def ran(field: Field, recipe: Recipe, plan: Plan, seed: int) -> Ran:
        loss = 3.0 + plan.outer_momentum + abs(recipe.lr - 0.01)
        if seed == 13:
            return dataclasses.replace(run(loss), best=None, points=())
        return run(loss, tale=loss + seed)

    monkeypatch.setattr(arms, "ran", ran)


def test_a_difference_is_the_mean_over_documents_of_the_mean_over_seeds() -> None:
    worse = [run(a=3.0, b=2.0), run(a=5.0, b=2.0)]
    better = [run(a=1.0, b=2.0), run(a=1.0, b=2.0)]
    found = difference(worse, better, 200)
    assert (found.interval.estimate, found.by_seed) == (1.5, (1.0, 2.0))


def test_documents_are_paired_by_name() -> None:
    assert difference([run(a=1.0, b=2.0)], [run(b=2.0, a=1.0)], 200).interval.estimate == 0.0


def test_adamw_has_one_rate_for_all_weights() -> None:
    assert at_rate(STEP, 0.5).adamw_lr == 0.5


def test_muons_rate_is_that_of_the_hidden_matrices_alone() -> None:
    muon = dataclasses.replace(STEP, optimizer="muon")
    assert (at_rate(muon, 0.5).lr, at_rate(muon, 0.5).adamw_lr) == (0.5, STEP.adamw_lr)


@pytest.mark.usefixtures("_shortcut")
def test_the_plan_and_rate_with_the_least_validation_loss_are_chosen() -> None:
    arm = chosen(FIELD, STEP, {NESTEROV: 0.02, AVERAGE: 0.02}, most=4, seed=0)
    assert (arm.plan, arm.recipe.lr, arm.at_edge) == (AVERAGE, 0.01, False)


@pytest.mark.usefixtures("_shortcut")
def test_an_arm_runs_once_for_each_seed() -> None:
    arm = chosen(FIELD, STEP, {AVERAGE: 0.01}, most=3, seed=0)
    assert [one.test_nats["tale"] for one in arm.runs([1, 2])] == [4.0, 5.0]


@pytest.mark.usefixtures("_shortcut")
def test_an_arm_without_any_finite_loss_is_no_arm() -> None:
    arm = chosen(FIELD, STEP, {AVERAGE: 0.01}, most=3, seed=0)
    with pytest.raises(RunFailed, match=r"Seed 13 .* had no finite loss"):
        arm.runs([1, 13])


def test_a_seed_that_tunes_does_not_judge() -> None:
    with pytest.raises(BadRecipe, match="Seed 1 tunes"):
        duel(FIELD, STEP, 100, seeds=[1, 2], tuning_seed=1, most=3)


def test_a_run_without_a_finite_loss_is_infinitely_bad() -> None:
    lost = Ran((), None, {}, True, 0)
    assert (lost.validation_nats, lost.mean_test_nats) == (float("inf"), float("inf"))


def test_domains_apart_need_as_many_workers() -> None:
    with pytest.raises(BadRecipe, match="can't hold 4 domains apart"):
        Field(3, "apart")
