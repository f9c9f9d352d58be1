"""Evidence against closed forms and textbook values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from sharedllm.bets.evidence import (
    Interval,
    bootstrap,
    cluster_means,
    e_bh,
    inside,
    permutation_p,
    product,
    sign_test,
    wager,
    wealth,
)

ROUNDING = 1e-9


def kt_wealth(heads: int, tails: int) -> float:
    """Krichevsky–Trofimov: 2ⁿ · B(h + ½, t + ½) / B(½, ½)."""
    log = (
        (heads + tails) * math.log(2)
        + math.lgamma(heads + 0.5)
        + math.lgamma(tails + 0.5)
        - math.lgamma(heads + tails + 1)
        - math.log(math.pi)
    )
    return math.exp(log)


def test_clusters_average_first() -> None:
    assert cluster_means([1, 3, 10], ["a", "a", "b"]).tolist() == [2, 10]


def test_a_long_document_counts_as_much_as_a_short_one() -> None:
    interval = bootstrap([1.0] * 99 + [0.0], ["long"] * 99 + ["short"])
    assert interval.estimate == 0.5


def test_the_bootstrap_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, 400)
    interval = bootstrap(values, range(400), seed=2)
    half_width = 1.959964 * values.std() / math.sqrt(400)
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.01)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.01)


def test_clustered_tokens_widen_the_interval_by_the_design_effect() -> None:
    documents = np.random.default_rng(3).normal(0, 1, 50)
    tokens = np.repeat(documents, 100)
    wide = bootstrap(tokens, np.repeat(np.arange(50), 100).tolist())
    narrow = bootstrap(tokens, list(range(5000)))
    ratio = (wide.high - wide.low) / (narrow.high - narrow.low)
    assert ratio == pytest.approx(10.0, rel=0.1)  # √100 copies of each


def test_the_bootstrap_repeats_with_its_seed() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap(values, range(30), seed=5) == bootstrap(values, range(30), seed=5)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [[1.0], [2.0]]])
def test_no_values_and_odd_values_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"finite|cluster names"):
        bootstrap(values, ["a"] * len(values))


@pytest.mark.parametrize(
    ("above", "below", "alternative", "p"),
    [
        (15, 0, "greater", 2**-15),  # the seed's 15 of 15
        (5, 0, "greater", 2**-5),
        (8, 2, "two-sided", 112 / 1024),  # Conover, Practical Nonparametric Statistics §3.4: 2·P(X ≥ 8)
        (12, 15, "two-sided", 0.7011),
        (2, 8, "less", 56 / 1024),
        (5, 5, "two-sided", 1.0),
        (0, 0, "two-sided", 1.0),
    ],
)
def test_the_sign_test_gives_the_textbook_p(above: int, below: int, alternative: str, p: float) -> None:
    assert sign_test([1.0] * above + [-1.0] * below + [0.0] * 3, alternative) == pytest.approx(p, abs=1e-4)


@pytest.mark.parametrize("users", [3, 5, 7])
def test_a_perfect_diagonal_reaches_the_least_possible_p(users: int) -> None:
    assert permutation_p(np.eye(users)) == pytest.approx(1 / math.factorial(users))


def test_a_table_without_structure_has_p_one() -> None:
    assert permutation_p(np.full((4, 4), 0.1)) == 1.0


def test_the_permutation_test_agrees_with_counting_by_hand() -> None:
    scores = np.array([[3.0, 1.0, 2.0], [0.0, 2.0, 5.0], [1.0, 4.0, 1.0]])
    sums = [sum(scores[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(3))]
    assert permutation_p(scores) == sum(s >= np.trace(scores) for s in sums) / 6


def test_a_table_too_large_to_enumerate_is_refused() -> None:
    with pytest.raises(ValueError, match="2 to 9 rows"):
        permutation_p(np.eye(10))


@pytest.mark.parametrize(("low", "high", "answer"), [(0.9, 1.1, True), (1.0, 1.1, False), (0.9, 1.0, False)])
def test_equivalence_is_an_interval_inside_a_margin(low: float, high: float, answer: bool) -> None:
    assert inside(Interval(1.0, 0.95, 1.05, 0.9, 10), low, high) is answer


def test_a_fixed_stake_has_the_closed_form() -> None:
    heads, tails, stake = 7, 3, 0.4
    result = wager([1.0] * heads + [-1.0] * tails, stake, bound=1)
    assert result.e_value == pytest.approx((1 + stake) ** heads * (1 - stake) ** tails, rel=ROUNDING)


def test_a_stake_against_a_null_that_is_not_zero() -> None:
    result = wager([0.5], 0.5, bound=1, null=0.2)
    assert result.e_value == pytest.approx(1 + 0.5 * (0.5 - 0.2) / 1.2)


@pytest.mark.parametrize(("heads", "tails"), [(1, 0), (4, 1), (10, 10), (60, 40), (0, 200), (300, 399)])
def test_the_mixture_is_the_krichevsky_trofimov_bettor_on_coins(heads: int, tails: int) -> None:
    coins = [1.0] * heads + [-1.0] * tails
    assert wealth(coins, bound=1).e_value == pytest.approx(kt_wealth(heads, tails), rel=1e-7)


def test_the_two_sided_bettor_splits_its_money() -> None:
    coins = [1.0, 1.0, -1.0, 1.0]
    sides = [wealth(coins, bound=1, alternative=side).e_value for side in ("greater", "less")]
    assert wealth(coins, bound=1).e_value == pytest.approx(sum(sides) / 2, rel=ROUNDING)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_under_the_null_mean_wealth_is_one_over_all_outcomes(alternative: str) -> None:
    outcomes = list(itertools.product([-1.0, 0.0, 1.0], repeat=7))
    mean = math.fsum(wealth(o, bound=1, alternative=alternative).e_value for o in outcomes) / len(outcomes)
    assert mean == pytest.approx(1.0, rel=ROUNDING)


def test_under_the_null_wealth_seldom_reaches_one_over_alpha_at_any_time() -> None:
    outcomes = list(itertools.product([-1.0, 1.0], repeat=10))
    for alpha in (0.5, 0.2, 0.05):
        reached = sum(max(wealth(o, bound=1).trajectory) >= 1 / alpha for o in outcomes)
        assert reached / len(outcomes) <= alpha


def test_a_mean_on_the_wrong_side_of_a_one_sided_null_loses_money_on_average() -> None:
    outcomes = list(itertools.product([-1.0, 0.5], repeat=6))  # mean −0.25
    mean = sum(wealth(o, bound=1, alternative="greater").e_value for o in outcomes) / len(outcomes)
    assert mean < 1


def test_no_difference_is_no_money() -> None:
    assert wealth([], bound=1).e_value == 1.0
    assert wealth([0.0] * 10, bound=1).e_value == pytest.approx(1.0)


@pytest.mark.parametrize(("values", "bound", "null"), [([1.1], 1, 0), ([float("nan")], 1, 0), ([0.5], 1, 1)])
def test_a_difference_outside_the_bound_is_refused(values: list[float], bound: float, null: float) -> None:
    with pytest.raises(ValueError, match=r"bound|inside"):
        wealth(values, bound=bound, null=null)


def test_overwhelming_wealth_is_infinite_and_not_an_error() -> None:
    assert wealth([1.0] * 3000, bound=1).e_value == math.inf


def test_replications_multiply() -> None:
    assert product([2.0, 3.0, 0.5]) == pytest.approx(3.0)
    assert product([]) == 1.0
    assert product([math.inf, 0.0]) == 0.0


def test_e_bh_rejects_the_largest_that_clear_their_bar() -> None:
    # K = 4, α = 0.1: bars 40, 20, 13.3, 10 for k = 1 … 4
    assert e_bh([25.0, 1.0, 21.0, 0.0], 0.1) == [True, False, True, False]
    assert e_bh([39.0, 1.0, 1.0, 1.0], 0.1) == [False] * 4
    assert e_bh([10.0] * 4, 0.1) == [True] * 4
    assert e_bh([], 0.1) == []
