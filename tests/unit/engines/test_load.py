"""An engine that is busy, rests, is left or leaves: others go on, and nothing stays behind."""

from __future__ import annotations

import contextlib
import gc
import queue
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor

from sharedllm.engines import NotServed, Stage
from sharedllm.engines.sessions import Sessions
from sharedllm.engines.slots import Slots
from sharedllm.wire import Codec, Frame, Kind, Link, LinkClosed, Op, Pong, Segment, Want
from tests.unit.engines.hosts import SOON_S, Host, Ring, admission, expect, fault, finder, opening, until
from tests.unit.engines.toys import toy

MODEL = toy("dense")
H_RD = MODEL.embed(torch.tensor([5]))
ROW = Segment(Op.ROWS, 1, 0, 1, Want.LAST)


class Held(Stage):
    """A stage whose computing begins, waits to be let go, and ends when the test says so."""

    def __init__(self) -> None:
        super().__init__(toy("dense").span(0, 4))
        self.began: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.go = threading.Semaphore(0)

    def run(
        self, h_RD: Tensor, segments: tuple[Segment, ...], slots: Slots, roundings: Mapping[int, Codec]
    ) -> tuple[Tensor, Tensor]:
        self.began.put(None)
        assert self.go.acquire(timeout=SOON_S)
        return super().run(h_RD, segments, slots, roundings)


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def host(held: Held) -> Iterator[Host]:
    host = Host(finder(lambda start, stop: held))
    yield host
    host.close()


def pong(link: Link) -> Pong:
    link.post(Frame(Kind.PING, 1))
    return Pong.from_bytes(expect(link, Kind.PONG).meta)


def test_a_ping_is_answered_while_a_step_is_computed(host: Host, held: Held) -> None:
    ring = Ring([host], [0, 4])
    assert pong(ring.links[0]) == Pong(0.0, 0, 0)
    for at in range(3):
        ring.send(H_RD, Segment(Op.ROWS, 1, at, 1, Want.LAST))
    held.began.get(timeout=SOON_S)
    busy = pong(ring.links[0])
    assert busy.busy_s > 0
    assert (busy.step, busy.queued) == (1, 2)
    held.go.release(3)
    queued = [ring.result()[0].hops[0].queued for _ in range(3)]
    assert queued[1:] == [1, 0]  # behind the first it depends on how fast they came
    assert until(lambda: pong(ring.links[0]).busy_s == 0)
    ring.close()


def test_pings_while_steps_end_never_break_a_connection(host: Host, held: Held) -> None:
    ring = Ring([host], [0, 4])
    held.go.release(200)
    for at in range(200):
        ring.send(H_RD, Segment(Op.ROWS, 1, at, 1))
        ring.links[0].post(Frame(Kind.PING, 1))
    kinds = [ring.links[0].receive(SOON_S).kind for _ in range(400)]
    assert (kinds.count(Kind.PONG), kinds.count(Kind.RESULT)) == (200, 200)
    ring.close()


def test_the_caches_of_a_caller_that_vanishes_during_a_step_are_freed(host: Host, held: Held) -> None:
    ring = Ring([host], [0, 4])
    slots = weakref.ref(host.engine.sessions.all()[0].work.slots)
    ring.send(H_RD, ROW)
    held.began.get(timeout=SOON_S)
    ring.close()
    assert until(lambda: not len(host.engine.sessions))
    held.go.release()
    assert until(lambda: host.engine.steps_done == 1)

    def gone() -> bool:
        gc.collect()
        return slots() is None

    assert until(gone)
    assert host.engine.sessions.kv_bytes == 0
    assert not host.engine._links


def test_steps_of_a_caller_that_is_gone_are_not_computed(host: Host, held: Held) -> None:
    ring = Ring([host], [0, 4])
    for at in range(50):
        ring.send(H_RD, Segment(Op.ROWS, 1, at, 1))
    held.began.get(timeout=SOON_S)
    ring.close()
    assert until(lambda: not len(host.engine.sessions))
    other = Ring([host], [0, 4])
    held.go.release(2)
    other.step(H_RD, ROW)
    assert until(lambda: host.engine.steps_done == 2)
    other.close()


def test_one_that_sends_steps_without_end_is_refused_and_harms_nobody(host: Host, held: Held) -> None:
    calm = host.link(admission(pipeline="f" * 32))
    calm.post(Frame(Kind.OPEN, 1, meta=opening(0, 4, None, pipeline="f" * 32).to_bytes()))
    expect(calm, Kind.OPENED)
    ring = Ring([host], [0, 4])
    with contextlib.suppress(LinkClosed):
        for at in range(300):
            ring.send(H_RD, Segment(Op.ROWS, 1, at, 1))
    assert "257 steps of one pipeline wait here; that is too many" in fault(ring.links[0]).sentence
    assert until(lambda: len(host.engine.sessions) == 1)
    assert pong(calm).queued >= 250
    held.go.release(1)
    assert until(lambda: pong(calm).queued == 0)
    ring.close()
    calm.close()


def test_a_worker_behind_one_that_vanishes_forgets_the_pipeline() -> None:
    hosts = [Host(finder(lambda start, stop: Stage(toy("dense").span(start, stop)))) for _ in range(2)]
    ring = Ring(hosts, [0, 2, 4])
    ring.step(H_RD, ROW)
    hosts[0].close()
    assert until(lambda: not len(hosts[1].engine.sessions))
    ring.close()
    hosts[1].close()


def test_a_worker_that_lost_the_next_one_blames_it() -> None:
    hosts = [Host(finder(lambda start, stop: Stage(toy("dense").span(start, stop)))) for _ in range(2)]
    ring = Ring(hosts, [0, 2, 4])
    ring.step(H_RD, ROW)
    hosts[1].close()
    for at in range(1, 4):
        ring.send(H_RD, Segment(Op.ROWS, 1, at, 1))
    assert fault(ring.links[0]).culprit == "next"
    ring.close()
    hosts[0].close()


@pytest.mark.parametrize(("share", "used"), [(0.5, 0.5), (0.1, 0.1), (0.0, 0.01), (-1.0, 0.01)])
def test_an_engine_rests_as_long_as_its_owner_asks(
    monkeypatch: pytest.MonkeyPatch, share: float, used: float
) -> None:
    rests_s: list[float] = []
    monkeypatch.setattr("sharedllm.engines.server.time", _Clock(rests_s))
    host = Host(finder(lambda start, stop: Stage(toy("dense").span(start, stop))), share=lambda: share)
    ring = Ring([host], [0, 4])
    ring.send(H_RD, ROW)
    (hop,) = ring.result()[0].hops
    assert rests_s == [pytest.approx(hop.compute_us / 1e6 * (1 - used), abs=2e-6)]
    ring.close()
    host.close()


class _Clock:
    """Time that is never slept through, only noted."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, rests_s: list[float]) -> None:
        self.sleep = rests_s.append


def test_an_engine_that_wants_to_leave_asks_every_primary(host: Host) -> None:
    ring = Ring([host], [0, 4], epoch=8)
    host.engine.ask_to_leave()
    assert expect(ring.links[0], Kind.CLOSE).epoch == 8
    ring.links[0].post(Frame(Kind.CLOSE, 8))
    assert until(lambda: not len(host.engine.sessions))
    ring.close()


def test_closing_ends_every_connection_and_thread(held: Held) -> None:
    before = set(threading.enumerate())
    host = Host(finder(lambda start, stop: held))
    ring = Ring([host], [0, 4])
    host.close()
    assert not host.thread.is_alive()
    assert until(lambda: not {thread.name for thread in threading.enumerate() if thread not in before})
    with pytest.raises(LinkClosed):
        ring.links[0].receive(SOON_S)
    ring.close()


def test_an_engine_that_runs_out_of_files_serves_again_when_there_are_some(
    monkeypatch: pytest.MonkeyPatch, host: Host
) -> None:
    failed = threading.Event()
    accept = socket.socket.accept

    def failing(self: socket.socket) -> tuple[socket.socket, object]:
        taken = accept(self)
        if not failed.is_set():
            failed.set()
            taken[0].close()
            raise OSError(24, "Too many open files")
        return taken

    monkeypatch.setattr(socket.socket, "accept", failing)
    host.raw().close()  # the engine waited in the true accept; from the next caller on, it fails once
    with contextlib.suppress(ConnectionError):  # it is hung up on, perhaps before it has said anything
        host.raw().close()
    assert failed.wait(SOON_S)
    ring = Ring([host], [0, 4])
    ring.close()


def test_pipelines_that_open_at_once_are_never_granted_more_than_there_is() -> None:
    weights = Stage(toy("dense").span(0, 4)).weights_bytes
    shared = Stage(toy("dense").span(0, 4))
    memory = weights + 1000 * shared.kv_bytes_per_token
    sessions = Sessions(finder(lambda start, stop: shared), memory)
    ends = socket.socketpair()
    link, refused = Link(ends[0], "primary"), list[str]()
    barrier = threading.Barrier(8)

    def open_one(number: int) -> None:
        barrier.wait(SOON_S)
        try:
            sessions.open(opening(0, 4, None, pipeline=f"{number:032x}"), 1, link, True)
        except NotServed as error:
            refused.append(str(error))

    threads = [threading.Thread(target=open_one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    granted = sum(session.work.slots.budget for session in sessions.all())
    assert [s.work.slots.budget for s in sessions.all()] == [500, 256]
    assert granted <= 1000
    assert len(refused) == 6
    assert all("too few for 256 tokens" in sentence for sentence in refused)
    link.close()
    ends[1].close()


def test_a_span_larger_than_the_memory_is_refused_and_a_span_that_nobody_uses_makes_room() -> None:
    small, large = Stage(toy("dense").span(0, 3)), Stage(toy("dense").span(0, 4))
    memory = large.weights_bytes + 300 * large.kv_bytes_per_token
    sessions = Sessions(finder(lambda start, stop: small if stop == 3 else large), memory)
    ends = socket.socketpair()
    link = Link(ends[0], "primary")
    first = sessions.open(opening(0, 3, None), 1, link, True)
    with pytest.raises(NotServed, match="this worker gives"):
        sessions.open(opening(0, 4, None, pipeline="f" * 32), 1, link, True)
    assert sessions.weights_bytes == small.weights_bytes
    sessions.drop(first)
    sessions.open(opening(0, 4, None, pipeline="f" * 32), 1, link, True)
    assert sessions.weights_bytes == large.weights_bytes
    link.close()
    ends[1].close()
