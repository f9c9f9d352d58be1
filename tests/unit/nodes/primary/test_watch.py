"""Who is silent, who hangs, and when a better pipeline is asked for; the clock is the tests' own."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any, cast

import pytest

from sharedllm.nodes.primary import Member, Route, Routes, watch
from sharedllm.nodes.primary.pace import Pace
from sharedllm.nodes.primary.ring import Ring
from sharedllm.nodes.primary.watch import Watch
from sharedllm.wire import Hop, Pong

ROUTE = Route("p", 1, (Member("w1", "W1", 0, 2), Member("w2", "W2", 2, 4)), token_s=0.010)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


class Asked:
    """Routes that write down what they are asked."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []
        self.improvements: list[tuple[Callable[[list[Any], float], bool], bool]] = []

    def report(self, report: dict[str, Any]) -> None:
        self.reports.append(report)

    def improve(
        self, present: object, better: Any, then: object, *, spared: object, refresh: bool = False
    ) -> None:
        self.improvements.append((better, refresh))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    return clock


@pytest.fixture
def ring() -> Ring:
    return Ring(ROUTE, queue.SimpleQueue())


def answer(ring: Ring, **busy_s: float) -> None:
    for node, seconds in busy_s.items():
        ring.pongs[node] = (0.0, Pong(seconds, 0, 0))


def paced(first_ms: float = 2.0) -> Pace:
    pace = Pace(2)
    for ms in [2.0] * 8 + [first_ms] * 8:
        pace.took([Hop(0, 2, round(1000 * ms), 0), Hop(2, 4, 4000, 0)], 1, 0, 0.010 + ms / 1e3, 0.001)
    return pace


def test_all_are_asked_at_once_and_again_every_other_second(clock: Clock, ring: Ring) -> None:
    sight = Watch()
    asked = []
    for _ in range(50):
        clock.now_s += 0.1
        assert sight.look(ring, 0.0, 1.0) is None
        if not ring.pongs:
            asked.append(clock.now_s)
            answer(ring, w1=0, w2=0)
    assert len(asked) == 3


def test_whoever_does_not_take_an_adapter_in_time_is_frozen(
    clock: Clock, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    sight = Watch()
    ring.lending.begin(1, ["w2"], lambda: None)
    answer(ring, w1=0, w2=0)
    assert sight.look(ring, 0.0, 1.0) is None
    monkeypatch.setattr(watch, "_LENT_S", -1.0)
    down = sight.look(ring, 0.0, 1.0)
    assert down is not None
    assert (down.node, down.kind) == ("w2", "frozen")


def test_whoever_is_silent_for_six_seconds_is_frozen(clock: Clock, ring: Ring) -> None:
    sight = Watch()
    sight.look(ring, 0.0, 1.0)
    answer(ring, w1=0)
    clock.now_s += 5.9
    assert sight.look(ring, 0.0, 1.0) is None
    clock.now_s += 0.2
    down = sight.look(ring, 0.0, 1.0)
    assert down is not None
    assert (down.node, down.kind) == ("w2", "frozen")


def test_silence_is_judged_sooner_when_a_step_is_overdue(clock: Clock, ring: Ring) -> None:
    sight = Watch()
    sight.look(ring, 1.1, 1.0)
    clock.now_s += 1.6
    down = sight.look(ring, 2.7, 1.0)
    assert down is not None


def test_a_worker_that_answers_while_it_computes_is_left_alone(clock: Clock, ring: Ring) -> None:
    sight = Watch()
    for _ in range(40):
        clock.now_s += 0.1
        assert sight.look(ring, 4.0, 1.0) is None
        answer(ring, w1=3.0, w2=0.0)


def test_when_nothing_comes_for_five_deadlines_the_busiest_is_given_up(clock: Clock, ring: Ring) -> None:
    sight = Watch()
    sight.look(ring, 0.0, 1.0)
    answer(ring, w1=0.1, w2=5.0)
    down = sight.look(ring, 5.1, 1.0)
    assert down is not None
    assert down.node == "w2"


def test_a_slow_worker_is_reported_and_a_clearly_better_pipeline_asked_for(clock: Clock, ring: Ring) -> None:
    sight, asked, pace = Watch(), Asked(), paced(first_ms=40)
    clock.now_s += 3.1
    sight.saw(ring, pace, cast(Routes, asked), lambda route: None)
    assert (asked.reports[0]["kind"], asked.reports[0]["worker"]) == ("slow", "w1")
    assert asked.reports[0]["speeds"] == {"w1": pytest.approx(0.020), "w2": pytest.approx(0.002)}
    better = asked.improvements[0][0]
    assert (better([], 0.6 * pace.token_s()), better([], 0.8 * pace.token_s())) == (True, False)


def test_a_slow_worker_is_not_reported_at_every_step(clock: Clock, ring: Ring) -> None:
    sight, asked = Watch(), Asked()
    for _ in range(55):
        clock.now_s += 0.1
        sight.saw(ring, paced(first_ms=40), cast(Routes, asked), lambda route: None)
    assert len(asked.reports) == 1


def test_an_idle_pipeline_looks_for_a_better_one(clock: Clock, ring: Ring) -> None:
    sight, asked = Watch(), Asked()
    clock.now_s += 10.0
    sight.tend(ring, paced(), cast(Routes, asked), lambda route: None, True, 0)
    better, refresh = asked.improvements[0]
    assert not refresh
    assert better([("w1", 0, 4)], 0.006)
    assert better([("w1", 0, 1)] * 3, 0.010)
    assert not better([("w1", 0, 4)], 0.008)


def test_a_busy_pipeline_is_left_where_it_is_but_its_spares_are_renewed(clock: Clock, ring: Ring) -> None:
    sight, asked = Watch(), Asked()
    clock.now_s += 241.0
    sight.tend(ring, paced(), cast(Routes, asked), lambda route: None, False, 0)
    better, refresh = asked.improvements[0]
    assert refresh
    assert not better([("w1", 0, 4)], 1e-6)


def test_speeds_are_reported_only_after_fresh_tokens(clock: Clock, ring: Ring) -> None:
    sight, asked = Watch(), Asked()
    for tokens in (0, 40, 40, 90):
        clock.now_s += 10.0
        sight.tend(ring, paced(), cast(Routes, asked), lambda route: None, False, tokens)
    assert [(report["kind"], report["tokens"]) for report in asked.reports] == [("ok", 40), ("ok", 50)]
