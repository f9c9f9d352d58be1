"""Leases end by themselves, revocations hold, and a restart loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from sharedllm.nodes.coordinator.registry import Registry, UnknownNode
from sharedllm.nodes.coordinator.schemas import NodeReport

Report = Callable[..., NodeReport]
A, B = "a" * 32, "b" * 32


def live(registry: Registry) -> list[str]:
    return [node.id for node in registry.live()]


def test_a_node_is_live_until_its_lease_ends(registry: Registry, report: Report, clock: Any) -> None:
    registry.heartbeat(A, report("attic"))
    clock.pass_(8.9)
    assert live(registry) == [A]
    clock.pass_(0.2)
    assert live(registry) == []


def test_a_heartbeat_renews_the_lease(registry: Registry, report: Report, clock: Any) -> None:
    registry.heartbeat(A, report("attic"))
    clock.pass_(8)
    registry.heartbeat(A, report("attic"))
    clock.pass_(8)
    assert live(registry) == [A]


def test_a_node_that_left_is_gone_at_once_but_still_a_member(registry: Registry, report: Report) -> None:
    registry.heartbeat(A, report("attic"))
    registry.leave(A)
    assert (live(registry), [node.id for node in registry.members()]) == ([], [A])


def test_only_nodes_of_the_role_are_given(registry: Registry, report: Report) -> None:
    registry.heartbeat(A, report("attic"))
    registry.heartbeat(B, report("desk", role="primary"))
    assert [node.id for node in registry.live("primary")] == [B]


def test_a_revoked_node_is_no_longer_live(registry: Registry, report: Report) -> None:
    registry.heartbeat(A, report("attic"))
    assert registry.revoke("attic") == A
    assert live(registry) == []
    assert registry.revoked() == [A]


def test_a_revocation_by_another_process_is_seen(
    registry: Registry, engine: Engine, report: Report, clock: Any
) -> None:
    registry.heartbeat(A, report("attic"))
    Registry(engine, clock=clock).revoke(A)
    assert registry.is_revoked(A)


def test_an_old_revocation_is_kept_but_not_told(registry: Registry, report: Report, clock: Any) -> None:
    registry.heartbeat(A, report("attic"))
    registry.revoke(A)
    clock.pass_(3 * 24 * 3600)
    assert registry.revoked() == []
    assert registry.is_revoked(A)


def test_a_name_that_nobody_has_is_refused_with_a_sentence(registry: Registry) -> None:
    with pytest.raises(UnknownNode, match="No node is called 'attic'"):
        registry.revoke("attic")


def test_a_name_that_two_nodes_have_is_refused(registry: Registry, report: Report) -> None:
    registry.heartbeat(A, report("attic"))
    registry.heartbeat(B, report("attic"))
    with pytest.raises(UnknownNode, match="2 nodes are called"):
        registry.revoke("attic")


def test_a_node_is_found_by_the_start_of_its_id(registry: Registry, report: Report) -> None:
    registry.heartbeat(A, report("attic"))
    assert registry.pause(A[:8]) == A
    assert registry.paused() == {A}


def test_after_a_restart_leases_that_held_hold_for_one_lease_more(
    registry: Registry, engine: Engine, report: Report, clock: Any
) -> None:
    registry.heartbeat(A, report("attic"))
    clock.pass_(4)
    registry.heartbeat(B, report("barn"))
    clock.pass_(3_600)
    again = Registry(engine, clock=clock)
    assert live(again) == [A, B]
    clock.pass_(9.1)
    assert live(again) == []


def test_after_a_restart_a_lease_that_had_ended_stays_ended(
    registry: Registry, engine: Engine, report: Report, clock: Any
) -> None:
    registry.heartbeat(A, report("attic"))
    clock.pass_(10)
    registry.heartbeat(B, report("barn"))
    assert live(Registry(engine, clock=clock)) == [B]


def test_after_a_restart_a_node_that_left_stays_away(
    registry: Registry, engine: Engine, report: Report, clock: Any
) -> None:
    registry.heartbeat(A, report("attic"))
    registry.leave(A)
    assert live(Registry(engine, clock=clock)) == []


def test_steady_heartbeats_every_third_of_a_lease_survive_a_kill_at_any_moment(
    registry: Registry, engine: Engine, report: Report, clock: Any
) -> None:
    for beat in range(12):
        registry.heartbeat(A, report("attic", sessions=beat))
        clock.pass_(1.0)
        registry.heartbeat(B, report("barn", sessions=beat))
        clock.pass_(2.0)
        assert live(Registry(engine, clock=clock)) == [A, B], beat


def test_the_disk_learns_at_once_that_a_node_changed(
    registry: Registry, engine: Engine, report: Report, clock: Any
) -> None:
    registry.heartbeat(A, report("attic"))
    registry.heartbeat(A, report("attic", share=0.5))
    (node,) = Registry(engine, clock=clock).live()
    assert node.report is not None
    assert node.report.share == 0.5


def test_what_changes_with_every_heartbeat_is_written_when_the_coordinator_ends(
    registry: Registry, engine: Engine, report: Report, clock: Any
) -> None:
    registry.heartbeat(A, report("attic"))
    clock.pass_(1)
    registry.heartbeat(A, report("attic", sessions=5))
    registry.flush()
    (node,) = Registry(engine, clock=clock).live()
    assert node.report is not None
    assert node.report.sessions == 5


def test_an_epoch_is_never_given_twice_even_after_a_restart(
    registry: Registry, engine: Engine, report: Report, clock: Any
) -> None:
    registry.heartbeat(A, report("desk", role="primary"))
    given = []
    for again in (registry, Registry(engine, clock=clock)):
        with engine.begin() as connection:
            given.append(again.next_epochs(connection, A, 3))
    assert given == [1, 4]
