"""A rate is tuned until it has a worse one on both sides, or the trials run out."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from sharedllm.bets.rounds import tuned
from sharedllm.errors import BadRecipe


def bowl(best: float) -> Callable[[float], float]:
    """A loss that grows with the rate's distance from the best one, in octaves."""
    return lambda lr: 2.0 + abs(math.log2(lr / best))


@pytest.mark.parametrize("best", [0.001, 0.008, 0.064])
def test_the_best_rate_is_found_from_the_middle_outwards(best: float) -> None:
    found = tuned(bowl(best), 0.008, 9)
    assert (found.lr, found.at_edge) == (best, False)


def test_a_rate_in_the_middle_takes_three_runs() -> None:
    assert len(tuned(bowl(0.008), 0.008, 9).nats) == 3


def test_when_the_trials_run_out_at_the_edge_it_says_so() -> None:
    found = tuned(bowl(0.064), 0.008, 4)
    assert (found.lr, found.at_edge) == (0.032, True)


def test_where_all_diverge_the_search_goes_down() -> None:
    falling = bowl(0.002)
    assert tuned(lambda lr: math.nan if lr > 0.003 else falling(lr), 0.008, 9).lr == 0.002


def test_the_least_loss_is_that_of_the_chosen_rate() -> None:
    assert tuned(bowl(0.008), 0.008, 3).least_nats == 2.0


def test_two_runs_tune_nothing() -> None:
    with pytest.raises(BadRecipe, match="at least 3"):
        tuned(bowl(0.008), 0.008, 2)
