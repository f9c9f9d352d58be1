"""How much of the time a worker works."""

from __future__ import annotations

import pytest

from sharedllm.nodes.rehearsal import jitter, ramp, steady


def test_a_steady_share_is_the_same_at_every_step() -> None:
    assert {steady(0.1)(step) for step in range(1, 50)} == {0.1}


def test_a_ramp_falls_evenly_and_stays_at_its_end() -> None:
    assert [ramp(0.5, 4)(step) for step in (1, 2, 4, 9)] == pytest.approx([0.875, 0.75, 0.5, 0.5])


def test_jitter_stays_within_bounds_and_is_the_same_for_the_same_seed() -> None:
    one, other = jitter(0.2, 7), jitter(0.2, 7)
    drawn = [one(step) for step in range(1, 100)]
    assert drawn == [other(step) for step in range(1, 100)]
    assert 0.2 <= min(drawn) < 0.4 < 0.8 < max(drawn) <= 1
