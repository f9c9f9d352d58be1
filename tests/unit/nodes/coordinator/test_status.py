"""What ``sharedllm status`` shows: every node with its state as a word, and figures that are told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sharedllm.nodes.coordinator.schemas import PipelineReport, PipelineRequest
from sharedllm.nodes.coordinator.status import Coordinator
from sharedllm.nodes.operations import metrics

Wish = Callable[..., PipelineRequest]
P, A, B = "0" * 31 + "1", "a" * 32, "b" * 32


def states(coordinator: Coordinator) -> dict[str, str]:
    return {node["name"]: node["state"] for node in coordinator.status()["nodes"]}


def test_each_state_has_its_word(coordinator: Coordinator, two: Any, clock: Any) -> None:
    for number, name in enumerate(("cellar", "den", "eaves", "flat")):
        two(f"{number + 12:032x}", name, draining=name == "den")
    coordinator.registry.pause("eaves")
    coordinator.experience.ban(f"{12:032x}", "dead", "", 1.0)
    coordinator.registry.leave(f"{15:032x}")
    found = states(coordinator)
    assert [found[name] for name in ("attic", "cellar", "den", "eaves", "flat")] == [
        "up",
        "banned",
        "draining",
        "paused",
        "gone",
    ]


def test_primaries_come_first_and_then_names_in_order(coordinator: Coordinator, two: Any) -> None:
    assert list(states(coordinator)) == ["desk", "sofa", "attic", "barn"]


def test_an_estimate_is_not_shown_as_a_measurement(coordinator: Coordinator, wish: Wish, two: Any) -> None:
    id = coordinator.pipelines.open(P, wish())["pipeline"]
    coordinator.pipelines.report(P, id, PipelineReport(kind="ok", speeds={A: 0.5}))
    spans = {node["id"]: node["spans"] for node in coordinator.status()["nodes"]}
    assert [(span["measured"], span["s_per_layer"]) for span in spans[A] + spans[B]] == [
        (True, 0.5),
        (False, pytest.approx(90 / 1_000)),
    ]


def test_a_pipeline_stands_beside_its_floor_once_it_was_measured(
    coordinator: Coordinator, wish: Wish, two: Any
) -> None:
    id = coordinator.pipelines.open(P, wish())["pipeline"]
    (before,) = coordinator.status()["pipelines"]
    assert (before["tokens_per_s"], before["floor_percent"]) == (None, None)
    coordinator.pipelines.report(P, id, PipelineReport(kind="ok", token_s=before["floor_s"] * 2))
    (after,) = coordinator.status()["pipelines"]
    assert after["floor_percent"] == pytest.approx(50)


def test_hops_are_shown_as_measured(coordinator: Coordinator, wish: Wish, two: Any) -> None:
    id = coordinator.pipelines.open(P, wish())["pipeline"]
    coordinator.pipelines.report(P, id, PipelineReport(kind="ok", hops_ms={A: 7.0}))
    hops = {span["node"]: span["hop_ms"] for span in coordinator.status()["pipelines"][0]["spans"]}
    assert hops[A] == 7.0
    assert hops[B] != 7.0


def test_a_lease_that_runs_out_is_counted_and_one_given_back_is_not(
    coordinator: Coordinator, two: Any, clock: Any
) -> None:
    def expired() -> float:
        found: float = metrics.leases_expired._value.get()  # type: ignore[attr-defined]
        return found

    before = expired()
    coordinator.collect()
    coordinator.registry.leave(A)
    coordinator.collect()
    assert expired() == before
    clock.pass_(10)
    coordinator.collect()
    assert expired() == before + 3


def test_a_node_that_members_expelled_is_revoked_and_a_stranger_is_let_be(
    coordinator: Coordinator, report: Callable[..., Any]
) -> None:
    coordinator.registry.heartbeat("ab" * 16, report("attic"))
    for node in ("ab" * 16, "cd" * 16):
        coordinator.expel(node)
    assert coordinator.registry.revoked() == ["ab" * 16]
