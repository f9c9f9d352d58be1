"""Plans with liars and disturbances, and losses as multiples of the clean run's."""

from __future__ import annotations

import math

import pytest

from sharedllm.bets.liars import CAP_NATS, beset, disturbed, multiple
from sharedllm.bets.rounds import Ran
from sharedllm.training.outer import Plan, Point

PLAIN = Plan(8, 5, outer_lr=1.0, outer_momentum=0.0)


def made(nats: dict[str, float], last: float = 2.0, diverged: bool = False) -> Ran:
    point = Point(5, 100, 100, last)
    return Ran((point,) if nats else (), point if nats else None, nats, diverged, 0)


CLEAN = [made({"a": 2.0, "b": 4.0}), made({"a": 2.0, "b": 2.0})]


def test_the_last_workers_lie_and_the_rule_is_told_how_many() -> None:
    plan = beset(PLAIN, "nnm+median", 3, "stale")
    assert (plan.rule, plan.assumed_liars, plan.liars, plan.attack) == ("nnm+median", 3, (5, 6, 7), "stale")


@pytest.mark.parametrize("rounds", [4, 20, 33])
def test_no_liar_is_away_and_no_side_is_too_small_for_one_liar(rounds: int) -> None:
    plan = disturbed(beset(PLAIN, "median", 1, "scale"), rounds)
    for round_ in range(rounds):
        groups = plan.groups(round_)
        assert any(7 in group for group in groups)
        assert min(len(group) for group in groups) >= 3


@pytest.mark.parametrize("rounds", [4, 20, 33])
def test_everybody_is_back_before_the_end(rounds: int) -> None:
    assert disturbed(PLAIN, rounds + 1).groups(rounds) == [list(range(8))]


def test_workers_leave_and_a_cut_holds_for_a_while() -> None:
    sizes = [[len(group) for group in disturbed(PLAIN, 20).groups(round_)] for round_ in range(20)]
    assert sizes.count([7]) == 10
    assert sizes.count([3, 5]) == 2


def test_a_run_is_one_times_itself() -> None:
    found = multiple(CLEAN, CLEAN, 100)
    assert (found.interval.estimate, found.interval.low, found.interval.high) == (1.0, 1.0, 1.0)
    assert found.by_seed == (1.0, 1.0)
    assert found.last == 1.0


def test_documents_count_alike_and_seeds_are_averaged_first() -> None:
    arm = [made({"a": 4.0, "b": 4.0}, 3.0), made({"a": 4.0, "b": 4.0}, 3.0)]
    found = multiple(arm, CLEAN, 2000)
    assert found.interval.estimate == pytest.approx(8 / 5)
    assert (found.interval.low, found.interval.high) == (pytest.approx(4 / 3), pytest.approx(2.0))
    assert found.by_seed == (pytest.approx(4 / 3), pytest.approx(2.0))
    assert found.last == 1.5


@pytest.mark.parametrize("lost", [made({}), made({"a": math.inf, "b": 1e9}, diverged=True)])
def test_a_run_without_a_finite_loss_counts_as_the_cap(lost: Ran) -> None:
    found = multiple([lost, lost], CLEAN, 100)
    assert found.interval.estimate == CAP_NATS / 2.5
    assert found.last == CAP_NATS / 2.0
