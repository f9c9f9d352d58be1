"""Who is in the next generation, with a real store and members that are threads."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from sharedllm.errors import BadRecipe
from sharedllm.training.outer.processes import CannotGoOn, Settings, enter, host, listen
from sharedllm.training.outer.processes.meeting import Generation, Meeting, depart, interface_toward
from tests.unit.training.outer.processes.conftest import tiny_settings

LONG_S, SHORT_S = 20.0, 0.2


class Place:
    """A meeting place for three, at which members are threads."""

    def __init__(self, patience_s: float = LONG_S, least: int = 1) -> None:
        self.settings = tiny_settings(workers=3, patience_s=patience_s)
        self.store = host(self.settings, listen("127.0.0.1", 0))
        self.pool = ThreadPoolExecutor(8)
        self.least = least

    def member(self, number: int) -> Meeting:
        store, settings = enter("127.0.0.1", self.store.port)
        return Meeting(store, settings, number, self.least)

    def next(self, meeting: Meeting, *, finished: bool = False) -> Future[Generation]:
        return self.pool.submit(meeting.next, time.monotonic(), finished=finished)

    def first(self) -> list[Meeting]:
        """Let the three who start together meet."""
        members = [self.member(number) for number in range(3)]
        for meeting in [self.next(member) for member in members]:
            assert meeting.result(LONG_S) == Generation(1, (0, 1, 2))
        return members


@pytest.fixture
def place() -> Iterator[Place]:
    yield from opened(Place())


@pytest.fixture
def hasty() -> Iterator[Place]:
    yield from opened(Place(SHORT_S, least=2))


def opened(place: Place) -> Iterator[Place]:
    yield place
    place.pool.shutdown()


def test_newcomers_learn_what_is_trained(place: Place) -> None:
    _, settings = enter("127.0.0.1", place.store.port)
    assert settings == place.settings


def test_those_who_start_together_are_the_first_generation(place: Place) -> None:
    place.first()


def test_one_who_departed_before_the_start_is_not_waited_for(place: Place) -> None:
    depart(place.store, 1)
    waiting = [place.next(place.member(number)) for number in (0, 2)]
    assert [meeting.result(LONG_S).members for meeting in waiting] == [(0, 2)] * 2


def test_a_silent_member_is_left_out_when_patience_is_over(hasty: Place) -> None:
    members = hasty.first()
    waiting = [hasty.next(members[number]) for number in (0, 1)]
    assert [meeting.result(LONG_S) for meeting in waiting] == [Generation(2, (0, 1))] * 2


def test_a_newcomer_is_seen_waiting_and_let_in(place: Place) -> None:
    members = place.first()
    number = Meeting.number(place.store)
    newcomer = place.next(place.member(number))
    while not members[0].waiting():
        assert not newcomer.done()
    waiting = [place.next(member) for member in members]
    generations = {meeting.result(LONG_S) for meeting in [*waiting, newcomer]}
    assert generations == {Generation(2, (0, 1, 2, 3))}


def test_one_who_missed_a_generation_is_in_the_one_after(hasty: Place) -> None:
    members = hasty.first()
    for meeting in [hasty.next(members[number]) for number in (0, 1)]:
        meeting.result(LONG_S)
    sleeper = hasty.next(members[2])
    while not members[0].waiting():
        assert not sleeper.done()
    waiting = [hasty.next(members[number]) for number in (0, 1)]
    assert {meeting.result(LONG_S) for meeting in [*waiting, sleeper]} == {Generation(3, (0, 1, 2))}


def test_a_newcomer_alone_closes_nothing_and_says_so_when_all_are_gone(place: Place) -> None:
    place.first()
    newcomer = place.next(place.member(3))
    for number in range(3):
        depart(place.store, number)
    with pytest.raises(CannotGoOn, match="all who trained are done or dead"):
        newcomer.result(LONG_S)


def test_one_who_was_put_out_is_told_why(place: Place) -> None:
    members = place.first()
    members[0].put_out(2, "Worker 2 was put out: its state differed.")
    with pytest.raises(CannotGoOn, match="its state differed"):
        place.next(members[2]).result(LONG_S)


def test_nobody_waits_for_one_who_was_put_out(place: Place) -> None:
    members = place.first()
    members[0].put_out(2, "Worker 2 was put out.")
    waiting = [place.next(members[number]) for number in (0, 1)]
    assert [meeting.result(LONG_S).members for meeting in waiting] == [(0, 1)] * 2


def test_too_few_wait_and_then_give_up() -> None:
    place = Place(SHORT_S, least=3)
    members = place.first()
    waiting = [place.next(members[number]) for number in (0, 1)]
    for meeting in waiting:
        with pytest.raises(CannotGoOn, match="3 are needed"):
            meeting.result(LONG_S)
    place.pool.shutdown()


def test_one_who_has_the_last_state_may_go_on_alone() -> None:
    place = Place(SHORT_S, least=3)
    members = place.first()
    depart(place.store, 1)
    depart(place.store, 2)
    assert place.next(members[0], finished=True).result(LONG_S) == Generation(2, (0,))
    place.pool.shutdown()


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadRecipe, match=f"can't listen on 127.0.0.1:{port}"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", ""])
def test_a_place_on_all_addresses_is_refused(address: str) -> None:
    with pytest.raises(BadRecipe, match="every address"):
        listen(address, 0)


def test_nobody_there_is_said_in_a_sentence() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        with pytest.raises(BadRecipe, match="No training meets"):
            enter("127.0.0.1", unheard.getsockname()[1])


def test_loopback_is_reached_over_its_own_interface() -> None:
    assert interface_toward("127.0.0.1", 9).startswith("lo")


def test_settings_survive_the_way_over_the_wire() -> None:
    settings = tiny_settings(rule="nnm+median", workers=4, liars=1, codec="2bit")
    assert Settings.from_json(settings.to_json()) == settings
