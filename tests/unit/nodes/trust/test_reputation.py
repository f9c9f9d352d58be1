"""Reputation: what a third of all users stand behind, and where requests go."""

from __future__ import annotations

import numpy as np
import pytest

from sharedllm.nodes.trust import NEWCOMER, BadRating, Ratings, shares
from sharedllm.nodes.trust.trials import Market


def ratings(praising: int, blaming: int, users: int = 30) -> Ratings:
    made = Ratings(users, 1, half_life=10)
    made.add(np.arange(praising), 0, np.ones(praising))
    made.add(np.arange(praising, praising + blaming), 0, np.zeros(blaming))
    return made


def test_a_third_can_not_lift_a_name() -> None:
    assert ratings(praising=10, blaming=0).diverse()[0] == NEWCOMER


def test_more_than_a_third_can() -> None:
    assert ratings(praising=11, blaming=0).diverse()[0] == 1.0


def test_a_third_can_not_push_down_what_the_others_praise() -> None:
    assert ratings(praising=20, blaming=10).diverse()[0] == 1.0


def test_one_user_has_one_voice_however_often_it_speaks() -> None:
    made = Ratings(3, 1, half_life=10)
    made.add(0, 0, 1.0, times=1000)
    made.add(np.array([1, 2]), 0, np.zeros(2))
    assert made.diverse()[0] == 0.0
    assert made.naive()[0] > 0.99


def test_a_new_identity_starts_as_a_newcomer() -> None:
    made = ratings(praising=30, blaming=0)
    made.forget(0)
    assert made.diverse()[0] == made.naive()[0] == NEWCOMER


def test_older_ratings_count_less() -> None:
    made = Ratings(1, 1, half_life=1)
    made.add(0, 0, 0.0, times=100)
    for _ in range(10):
        made.age()
    made.add(0, 0, 1.0, times=100)
    assert made.decayed()[0] > 0.9 > made.naive()[0]


def test_a_score_above_one_is_refused_and_nothing_counted() -> None:
    made = Ratings(1, 1, half_life=1)
    with pytest.raises(BadRating, match="from 0 to 1"):
        made.add(0, 0, 1.5)
    assert made.naive()[0] == NEWCOMER


def test_requests_are_divided_whole() -> None:
    assert shares(np.array([1.0, 2.0]), np.array([0.5, 0.5])).tolist() == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.parametrize("reputation", [[0.0, 0.0], [np.nan, 1.0]])
def test_weights_that_are_none_are_refused(reputation: list[float]) -> None:
    with pytest.raises(BadRating, match="must be finite"):
        shares(np.ones(2), np.array(reputation))


def test_a_quarter_gains_nothing_by_praise_blame_and_new_names() -> None:
    market = Market(120, 20, 0.25, "diverse", equal=True, whitewash=5)
    assert market.pump(40, seed=0)[1] < 0.5


def test_the_naive_mean_is_overrun() -> None:
    assert Market(120, 20, 0.25, "naive", equal=True).pump(40, seed=0)[1] > 2
