"""Four real workers of whom one dies, hangs or lies, and a fifth that joins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sharedllm.training.outer.processes import Crew, Event
from sharedllm.training.outer.processes.churn import Churn
from tests.unit.training.outer.processes.conftest import Told, tiny_settings, told

pytestmark = pytest.mark.slow


def planned(plan: str, rounds: int = 8) -> Callable[[Event, Crew], object]:
    return Churn.of(plan, workers=4, rounds=rounds).after


def members_by_round(told: Told) -> dict[int, list[int]]:
    return {event["round"]: event["members"] for event in told.of("round")}


def test_the_others_finish_with_equal_bits_when_one_is_killed_in_a_round(tmp_path: Path) -> None:
    settings = tiny_settings(workers=4, rounds=6, rule="median", liars=1)
    run = told(settings, tmp_path, planned("kill:2@3", 6))
    assert (run.ends().keys(), len(set(run.ends().values()))) == ({0, 1, 3}, 1)
    assert members_by_round(run)[5] == [0, 1, 3]


def test_a_frozen_worker_is_left_out_and_comes_back_with_the_others_state(tmp_path: Path) -> None:
    settings = tiny_settings(workers=4, rounds=12, rule="median", liars=1, patience_s=4.0)
    run = told(settings, tmp_path, planned("freeze:1@2-3", 12))
    assert (run.ends().keys(), len(set(run.ends().values()))) == ({0, 1, 2, 3}, 1)
    assert members_by_round(run)[2] == [0, 2, 3]


def test_a_newcomer_ends_with_the_bits_of_the_others(tmp_path: Path) -> None:
    settings = tiny_settings(workers=4, rounds=200, rule="median", liars=1)
    run = told(settings, tmp_path, planned("join@2", 200))
    assert (run.ends().keys(), len(set(run.ends().values()))) == ({0, 1, 2, 3, 4}, 1)


@pytest.mark.parametrize("attack", ["scale", "sign-flip", "nan", "alie", "stale", "label-flip"])
def test_a_robust_rule_learns_although_one_lies(attack: str, tmp_path: Path) -> None:
    settings = tiny_settings(workers=4, rounds=12, rule="nnm+median", liars=1)
    run = told(settings, tmp_path, liars={3: attack})
    assert run.losses()[-1] < 0.97 * run.losses()[0]


def test_the_mean_does_not_survive_the_same_liar(tmp_path: Path) -> None:
    settings = tiny_settings(workers=4, rounds=12, rule="mean")
    run = told(settings, tmp_path, liars={3: "scale"})
    assert not run.ends() or run.losses()[-1] > 2 * run.losses()[0]
