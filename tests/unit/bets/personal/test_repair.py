"""The arms of a base add up: repair and the personal part make the gain, seeds make the mean."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sharedllm.bets.personal import Circle, repair_losses

Make = Callable[..., Circle]


@pytest.fixture
def table(circle: Make) -> dict[str, float]:
    return repair_losses(circle(), [0, 1], [0], ["int8"]).table()["step"]


def test_an_arm_is_the_mean_of_its_seeds(table: dict[str, float]) -> None:
    assert table["own"] == pytest.approx((table["own 0"] + table["own 1"]) / 2)


def test_of_two_users_the_other_is_all_others(circle: Make) -> None:
    one = circle()
    found = repair_losses(one, [0], [0], []).table()["step"]["others"]
    assert found == pytest.approx(one.nats("step", one.own("count", 0)).mean())


def test_an_adapter_read_from_a_coarse_file_is_another(table: dict[str, float]) -> None:
    assert table["own int8"] != table["own"] == pytest.approx(table["own int8"], abs=0.05)
