"""Where routes come from, and what a coordinator that is away means."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from sharedllm.nodes.errors import CoordinatorAway, NoPipeline
from sharedllm.nodes.primary import Route, Routes, route_from
from tests.unit.nodes.primary.threads import DEADLINE_S, Place

NOW = [("w1", 0, 2), ("w2", 2, 4)]
SPARED = ["w1", "w2", "w3"]


@pytest.fixture
def routes(ring: Place) -> Routes:
    return Routes(ring.coordinator, {"model": {"name": "tiny"}, "objective": {"kind": "fastest"}})


class Taken:
    """Routes that were handed over by a thread in the background."""

    def __init__(self) -> None:
        self.routes: list[Route] = []

    def __call__(self, route: Route) -> None:
        self.routes.append(route)


def finished() -> None:
    """Wait for what was asked in the background."""
    for thread in threading.enumerate():
        if thread.name == "to the coordinator":
            thread.join(DEADLINE_S)


def test_a_request_says_what_is_wished_who_is_banned_and_what_it_replaces(
    ring: Place, routes: Routes
) -> None:
    first = routes.ask({"w3", "w1"})
    routes.ask(set())
    assert ring.coordinator.asked[0]["banned"] == ["w1", "w3"]
    assert [asked["replaces"] for asked in ring.coordinator.asked] == [None, first.pipeline]
    assert ring.coordinator.asked[0]["model"] == {"name": "tiny"}


def test_a_route_brings_a_ready_spare_for_the_loss_of_each_worker(routes: Routes) -> None:
    route = routes.ask(set())
    assert {lost: [m.node for m in spare.members] for lost, spare in route.spares.items()} == {
        "w1": ["w2", "w3"],
        "w2": ["w1", "w3"],
        "w3": ["w1", "w2"],
    }


def test_a_loss_without_a_spare_is_left_out() -> None:
    reply: dict[str, Any] = {"pipeline": "p", "epoch": 1, "workers": [], "token_s": 1.0, "floor_s": 0.5}
    assert route_from({**reply, "spares": {"w1": None}}).spares == {}


def test_a_coordinator_that_is_away_is_known_to_be_until_it_answers(ring: Place, routes: Routes) -> None:
    ring.coordinator.away = True
    with pytest.raises(CoordinatorAway):
        routes.ask(set())
    assert routes.away
    ring.coordinator.away = False
    routes.ask(set())
    assert not routes.away


def test_a_refusal_is_passed_on_as_its_sentence(ring: Place, routes: Routes) -> None:
    with pytest.raises(NoPipeline, match="1,000 bytes of memory are missing"):
        routes.ask({"w1", "w2", "w3"})


@pytest.mark.parametrize(("better", "taken"), [(True, 1), (False, 0)])
def test_another_route_is_taken_only_if_it_is_better(routes: Routes, better: bool, taken: int) -> None:
    found = Taken()
    routes.improve([("w9", 0, 4)], lambda spans, token_s: better, found, spared=SPARED)
    finished()
    assert len(found.routes) == taken


@pytest.mark.parametrize(
    ("spared", "refresh", "taken"), [(SPARED, True, 1), (SPARED, False, 0), (["w1", "w2"], False, 1)]
)
def test_the_same_route_is_taken_only_for_its_fresh_or_further_spares(
    routes: Routes, spared: list[str], refresh: bool, taken: int
) -> None:
    found = Taken()
    routes.improve(NOW, lambda spans, token_s: True, found, spared=spared, refresh=refresh)
    finished()
    assert len(found.routes) == taken


def test_nothing_is_reported_about_no_pipeline(ring: Place, routes: Routes) -> None:
    routes.report({"kind": "ok"})
    finished()
    assert ring.coordinator.reports == []


def test_giving_up_a_pipeline_does_not_need_the_coordinator(ring: Place, routes: Routes) -> None:
    routes.ask(set())
    ring.coordinator.away = True
    routes.close()
    ring.coordinator.away = False
    routes.close()
    assert ring.coordinator.closed == [routes.registered]
