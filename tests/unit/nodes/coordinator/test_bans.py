"""A worker that failed is left alone for a while: as long as its failure deserves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sharedllm.nodes.coordinator.experience import GARBAGE_BAN_S
from sharedllm.nodes.coordinator.schemas import NodeReport
from sharedllm.nodes.coordinator.status import Coordinator

A = "a" * 32


@pytest.fixture
def banned(coordinator: Coordinator, report: Callable[..., NodeReport]) -> Callable[..., bool]:
    """Whether the worker is banned, after it was heard of with this start time."""

    def ask(started: float = 1.0) -> bool:
        coordinator.registry.heartbeat(A, report("attic", started=started))
        return A in coordinator.experience.banned(coordinator.registry.live())

    return ask


def test_a_dead_worker_is_banned_for_one_lease(coordinator: Coordinator, banned: Any, clock: Any) -> None:
    coordinator.experience.ban(A, "dead", "", 1.0)
    clock.pass_(8.9)
    assert banned()
    clock.pass_(0.2)
    assert not banned()


def test_a_newer_start_lifts_the_ban_of_a_dead_worker(coordinator: Coordinator, banned: Any) -> None:
    coordinator.experience.ban(A, "dead", "", 1.0)
    assert not banned(started=2.0)


def test_garbage_bans_longer_and_a_restart_does_not_help(
    coordinator: Coordinator, banned: Any, clock: Any
) -> None:
    coordinator.experience.ban(A, "garbage", "NaN", 1.0)
    clock.pass_(GARBAGE_BAN_S - 1)
    assert banned(started=2.0)
    clock.pass_(2)
    assert not banned()


def test_dying_again_and_again_bans_twice_as_long_each_time(
    coordinator: Coordinator, banned: Any, clock: Any
) -> None:
    lengths = []
    for _ in range(3):
        lengths.append(coordinator.experience.ban(A, "frozen", "", 1.0) - clock())
        clock.pass_(lengths[-1] + 1)
    assert lengths == [9, 18, 36]


def test_a_second_primary_that_reports_the_same_death_does_not_lengthen_the_ban(
    coordinator: Coordinator, clock: Any
) -> None:
    coordinator.experience.ban(A, "dead", "", 1.0)
    clock.pass_(1)
    assert coordinator.experience.ban(A, "dead", "", 1.0) - clock() == 9


def test_a_worker_that_was_seen_to_work_starts_anew(coordinator: Coordinator, clock: Any) -> None:
    coordinator.experience.ban(A, "dead", "", 1.0)
    clock.pass_(10)
    coordinator.experience.forgive([A])
    assert coordinator.experience.ban(A, "dead", "", 1.0) - clock() == 9


def test_a_worker_that_returned_garbage_is_not_forgiven_early(coordinator: Coordinator, banned: Any) -> None:
    coordinator.experience.ban(A, "garbage", "", 1.0)
    coordinator.experience.forgive([A])
    assert banned()


def test_a_report_of_death_does_not_shorten_a_ban_for_garbage(
    coordinator: Coordinator, banned: Any, clock: Any
) -> None:
    coordinator.experience.ban(A, "garbage", "", 1.0)
    coordinator.experience.ban(A, "dead", "", 1.0)
    clock.pass_(100)
    assert banned()


def test_the_sentence_says_why_and_how_long(
    coordinator: Coordinator, report: Callable[..., NodeReport]
) -> None:
    coordinator.registry.heartbeat(A, report("attic"))
    coordinator.experience.ban(A, "garbage", "row 3 holds NaN", 1.0)
    sentence = coordinator.experience.banned(coordinator.registry.live())[A]
    assert "reported to return garbage, and is not asked for the next 600 s (row 3 holds NaN)" in sentence
