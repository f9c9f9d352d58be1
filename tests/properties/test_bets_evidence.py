"""What must hold for any differences whatsoever."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedllm.bets.evidence import bootstrap, e_bh, permutation_p, sign_test, wager, wealth

bounded = st.lists(st.floats(-1, 1), min_size=1, max_size=40)


@given(bounded)
def test_wealth_is_never_negative_and_starts_from_one(differences: list[float]) -> None:
    trajectory = wealth(differences, bound=1).trajectory
    assert len(trajectory) == len(differences)
    assert min(trajectory) >= 0
    assert trajectory[0] <= 2 + 1e-9  # nobody more than doubles on one bet against a centred null


@given(bounded, st.randoms())
def test_the_e_value_does_not_depend_on_the_order(differences: list[float], random: object) -> None:
    shuffled = list(differences)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    log, other = (wealth(values, bound=1).log_wealth[-1] for values in (differences, shuffled))
    assert log == pytest.approx(other, abs=1e-9)


@given(bounded)
def test_a_mirror_turns_greater_into_less(differences: list[float]) -> None:
    mirrored = [-value for value in differences]
    one = wealth(differences, bound=1, alternative="greater").log_wealth[-1]
    assert one == pytest.approx(wealth(mirrored, bound=1, alternative="less").log_wealth[-1], abs=1e-9)


@given(st.floats(0, 1), st.floats(-0.9, 0.9), st.floats(-1, 1), st.floats(0, 1))
def test_a_fixed_stake_is_fair_for_two_outcomes_with_the_mean_of_the_null(
    stake: float, null: float, below: float, share: float
) -> None:
    low, high = null - (1 + null) * share, null + (1 - null) * abs(below)
    if high - low < 1e-6:
        return
    p = (null - low) / (high - low)
    mean = p * wager([high], stake, bound=1, null=null).e_value
    mean += (1 - p) * wager([low], stake, bound=1, null=null).e_value
    assert mean == pytest.approx(1.0, abs=1e-6)


@given(bounded, st.integers(0, 5))
def test_the_interval_holds_the_range_of_the_means(differences: list[float], seed: int) -> None:
    interval = bootstrap(differences, range(len(differences)), seed=seed, resamples=200)
    assert min(differences) - 1e-12 <= interval.low <= interval.high <= max(differences) + 1e-12


@given(st.lists(st.floats(-5, 5), max_size=60))
def test_the_sides_of_the_sign_test_share_one(differences: list[float]) -> None:
    greater, less = sign_test(differences, "greater"), sign_test(differences, "less")
    assert greater + less >= 1 - 1e-12
    assert sign_test(differences) == pytest.approx(min(1.0, 2 * min(greater, less)))


@given(st.integers(2, 5), st.integers(0, 2**31))
def test_the_permutation_p_is_at_least_one_over_all_permutations(users: int, seed: int) -> None:
    p = permutation_p(np.random.default_rng(seed).normal(size=(users, users)))
    assert 1 / math.factorial(users) - 1e-12 <= p <= 1


@given(st.lists(st.floats(0, 1e6), max_size=30), st.floats(0.01, 0.5))
def test_e_bh_rejects_more_when_evidence_grows(e_values: list[float], alpha: float) -> None:
    before, after = e_bh(e_values, alpha), e_bh([2 * value for value in e_values], alpha)
    assert all(now or not then for then, now in zip(before, after, strict=True))
