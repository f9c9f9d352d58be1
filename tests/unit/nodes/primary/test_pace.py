"""Times: what is usual, what is overdue, who is slow, and what the least possible would be."""

from __future__ import annotations

import pytest

from sharedllm.nodes.primary.pace import Pace
from sharedllm.wire import Hop


def hops(*compute_ms: float) -> list[Hop]:
    return [Hop(i, i + 1, round(1000 * ms), 0) for i, ms in enumerate(compute_ms)]


def paced(steps: int = 8, **given: float) -> Pace:
    """Two workers of 2 ms and 4 ms, 1 ms here, 10 ms in all."""
    pace = Pace(2)
    for _ in range(steps):
        pace.took(hops(given.get("first_ms", 2), 4), 1, 0, 0.010, 0.001)
    return pace


def test_the_first_step_has_time_to_warm_caches() -> None:
    assert Pace(2).deadline_s(0, 1) == 20.0


def test_a_fast_pipeline_still_has_a_second() -> None:
    assert paced().deadline_s(0, 1) == 1.0


def test_a_deadline_grows_with_the_rows_of_a_prompt() -> None:
    pace = paced()
    pace.took(hops(100, 100), 64, 64, 0.640, 0.001)
    assert pace.deadline_s(64, 2) == pytest.approx(4 * 2 * (0.010 + 64 * 0.010))


def test_a_worker_at_a_fraction_of_its_best_is_slow() -> None:
    pace = paced()
    for _ in range(8):
        pace.took(hops(20, 4), 1, 0, 0.030, 0.001)
    assert pace.slow() == [0]


def test_a_single_hiccup_makes_nobody_slow() -> None:
    pace = paced()
    pace.took(hops(200, 4), 1, 0, 0.210, 0.001)
    assert pace.slow() == []


def test_larger_batches_make_nobody_slow() -> None:
    pace = paced()
    for _ in range(8):
        pace.took(hops(20, 40), 32, 0, 0.080, 0.001)
    assert pace.slow() == []


def test_times_are_medians_and_hops_share_what_nobody_computed() -> None:
    pace = paced()
    assert (pace.compute_s(0), pace.compute_s(1)) == (0.002, 0.004)
    assert (pace.here_s(), pace.token_s()) == (0.001, 0.010)
    assert pace.hop_s() == pytest.approx(0.001)


def test_the_floor_is_computing_and_half_a_round_trip_per_hop() -> None:
    assert paced().floor_s([0.001, 0.001]) == pytest.approx(0.002 + 0.004 + 0.001 + 3 * 0.0005)


def test_the_floor_is_never_above_what_was_seen() -> None:
    assert paced().floor_s([1.0]) == 0.010


@pytest.mark.parametrize("rows", [0, 4])
def test_there_is_no_floor_before_a_single_token_was_timed(rows: int) -> None:
    pace = Pace(2)
    pace.took(hops(2, 4), rows, 0, 0.010, 0.001)
    assert pace.floor_s([0.001]) == 0.0


def test_hops_of_a_lying_worker_are_not_counted() -> None:
    pace = Pace(2)
    pace.took(hops(1, 2, 3), 1, 0, 0.010, 0.001)
    assert (pace.token_s(), pace.compute_s(0)) == (0.0, 0.0)
