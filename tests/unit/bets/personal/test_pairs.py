"""A pair of users counts by the one whom it helps less."""

from __future__ import annotations

import numpy as np
import pytest

from sharedllm.bets.losses import Losses
from sharedllm.bets.personal import Pairs, pairwise

GAINS = {
    "ann": {"bob": [1.0, 3.0], "cyd": [1.0, 1.0]},
    "bob": {"ann": [4.0, 4.0], "cyd": [2.0, 2.0]},
    "cyd": {"ann": [9.0, -1.0], "bob": [-5.0, -5.0]},
}


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    losses = Losses()
    for user, gains in GAINS.items():
        arms = {f"with {other}": -np.array(gain) for other, gain in gains.items()}
        losses.add(user, ["x", "y"], {"base": [0.0, 0.0], f"with {user}": [0.0, 0.0], **arms})
    return pairwise(losses, list(GAINS), "base", 200)


def test_every_pair_is_there_once(pairs: Pairs) -> None:
    assert list(pairs.gains) == [("ann", "bob"), ("ann", "cyd"), ("bob", "cyd")]


def test_gains_stand_in_the_order_of_the_names(pairs: Pairs) -> None:
    assert [gain.estimate for gain in pairs.gains["ann", "bob"]] == [2.0, 4.0]


def test_a_pair_counts_by_the_user_whom_it_helps_less(pairs: Pairs) -> None:
    less = {pair: gain.estimate for pair, gain in pairs.less.items()}
    assert less == {"ann, bob": 2.0, "ann, cyd": 1.0, "bob, cyd": -5.0}


def test_pairs_that_gain_on_both_sides_are_counted(pairs: Pairs) -> None:
    assert pairs.helped == 2


def test_pairs_whose_interval_reaches_zero_are_not_sure(pairs: Pairs) -> None:
    assert pairs.surely_helped == 1


def test_the_table_has_both_halves_alike(pairs: Pairs) -> None:
    expected_UU = [[0.0, 2.0, 1.0], [2.0, 0.0, -5.0], [1.0, -5.0, 0.0]]
    np.testing.assert_array_equal(pairs.table(list(GAINS)), expected_UU)
