"""Engines on Unix sockets, one behind the other, compute what one stage computes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
import torch

from sharedllm.engines import Stage
from sharedllm.wire import Attach, Frame, Hop, Kind, Note, Op, Segment, Want
from tests.unit.engines.hosts import Host, Ring, admission, expect, fault, finder, opening, until
from tests.unit.engines.toys import Chain, stage, toy

MODEL = toy("dense")
TOKENS = torch.randint(0, 90, (30,), generator=torch.Generator().manual_seed(1))
H_RD = MODEL.embed(TOKENS)


@functools.cache
def part(start: int, stop: int) -> Stage:
    return stage(MODEL, start, stop)


Start = Callable[[int], list[Host]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start engines that know the toy model; they end with the test."""
    hosts: list[Host] = []

    def run(count: int) -> list[Host]:
        hosts.extend(Host(finder(part)) for _ in range(count))
        return hosts[-count:]

    yield run
    for host in hosts:
        host.close()


@pytest.mark.parametrize("borders", [[0, 4], [0, 1, 4], [0, 1, 3, 4]])
def test_a_ring_computes_the_same_bits_as_one_stage(start: Start, borders: list[int]) -> None:
    ring, chain = Ring(start(len(borders) - 1), borders), Chain([part(0, 4)])
    for segment in (
        Segment(Op.CHUNK, 1, 0, 12, Want.ALL),
        Segment(Op.ROWS, 1, 12, 1, Want.LAST),
        Segment(Op.ROWS, 1, 13, 5, Want.ALL),
    ):
        rows = H_RD[segment.start : segment.start + segment.rows]
        assert torch.equal(ring.step(rows, segment), chain.step(rows, segment))
    ring.close()


def test_what_was_opened_is_described(start: Start) -> None:
    ring = Ring(start(2), [0, 3, 4])
    assert [(o.width, o.steady, o.kv_bytes_per_token) for o in ring.opened] == [
        (48, True, part(0, 3).kv_bytes_per_token),
        (48, True, part(3, 4).kv_bytes_per_token),
    ]
    assert all(opened.kv_tokens > 256 and opened.threads >= 1 for opened in ring.opened)
    ring.close()


def test_every_worker_on_the_way_says_what_it_spent(start: Start) -> None:
    ring = Ring(start(3), [0, 1, 2, 4])
    ring.send(H_RD[:3], Segment(Op.CHUNK, 1, 0, 3, Want.LAST))
    meta, _ = ring.result()
    assert [(hop.start, hop.stop) for hop in meta.hops] == [(0, 1), (1, 2), (2, 4)]
    assert all(isinstance(hop, Hop) and hop.compute_us > 0 for hop in meta.hops)
    ring.close()


def test_several_steps_may_be_under_way_and_come_back_in_order(start: Start) -> None:
    ring = Ring(start(2), [0, 2, 4])
    for at in range(20):
        ring.send(H_RD[at : at + 1], Segment(Op.ROWS, 1, at, 1, Want.LAST))
    assert [ring.result()[0].segments[0].start for _ in range(20)] == list(range(20))
    ring.close()


def test_two_pipelines_of_one_engine_share_weights_but_no_cache(start: Start) -> None:
    (host,) = start(1)
    first = Ring([host], [0, 4])
    other = host.link(admission(pipeline="f" * 32))
    request = opening(0, 4, None, pipeline="f" * 32)
    other.post(Frame(Kind.OPEN, 1, meta=request.to_bytes()))
    expect(other, Kind.OPENED)
    second = Ring.__new__(Ring)
    second.epoch, second.links, second._steps = 1, [other], first._steps
    row = Segment(Op.ROWS, 1, 0, 1, Want.LAST)
    assert torch.equal(first.step(H_RD[:1], row), second.step(H_RD[:1], row))
    assert host.engine.sessions.weights_bytes == part(0, 4).weights_bytes
    assert len(host.engine.sessions) == 2
    first.close()
    other.close()


def test_a_worker_that_attaches_early_waits_until_the_pipeline_is_open(start: Start) -> None:
    (host,) = start(1)
    before, primary = host.link(), host.link()
    before.post(Frame(Kind.ATTACH, 5, meta=Attach(admission()["pipeline"], 2).to_bytes()))
    before.post(Frame(Kind.PING))  # answered only once the attachment is settled
    primary.post(Frame(Kind.OPEN, 5, meta=opening(2, 4, None).to_bytes()))
    expect(primary, Kind.OPENED)
    assert expect(before, Kind.ATTACHED).epoch == 5
    expect(before, Kind.PONG)
    before.close()
    primary.close()


@pytest.mark.parametrize("stop", [1, 3])
def test_a_worker_that_computed_other_layers_can_not_attach(start: Start, stop: int) -> None:
    (host,) = start(1)
    before, primary = host.link(), host.link()
    primary.post(Frame(Kind.OPEN, 5, meta=opening(2, 4, None).to_bytes()))
    expect(primary, Kind.OPENED)
    before.post(Frame(Kind.ATTACH, 5, meta=Attach(admission()["pipeline"], stop).to_bytes()))
    assert f"Layers up to {stop} were offered before a span that begins at 2" in fault(before).sentence
    primary.close()


def test_the_place_before_a_worker_is_given_once(start: Start) -> None:
    hosts = start(2)
    ring = Ring(hosts, [0, 2, 4])
    intruder = hosts[1].link()
    intruder.post(Frame(Kind.ATTACH, 1, meta=Attach(admission()["pipeline"], 2).to_bytes()))
    assert "its place is taken" in fault(intruder).sentence
    ring.step(H_RD[:1], Segment(Op.ROWS, 1, 0, 1, Want.LAST))
    ring.close()


def test_a_note_goes_round_the_ring_without_disturbing_steps(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sharedllm.engines")
    ring = Ring(start(2), [0, 2, 4])
    ring.links[0].post(Frame(Kind.NOTE, 1, meta=Note(1, "request-7").to_bytes()))
    ring.step(H_RD[:1], Segment(Op.ROWS, 1, 0, 1, Want.LAST))
    assert until(lambda: len([r for r in caplog.records if "computing layers" in r.message]) == 2)
    assert {getattr(r, "request_id", "") for r in caplog.records} == {"request-7"}
    ring.close()


def test_a_pipeline_that_is_opened_anew_takes_the_place_of_the_old_one(start: Start) -> None:
    (host,) = start(1)
    old = Ring([host], [0, 4], epoch=1)
    old.step(H_RD[:1], Segment(Op.ROWS, 1, 0, 1, Want.LAST))
    new = Ring([host], [0, 4], epoch=2)
    assert len(host.engine.sessions) == 1
    assert new.opened[0].kv_tokens == old.opened[0].kv_tokens  # the old one's grant was given back
    assert host.engine.sessions.kv_bytes == 0
    new.step(H_RD[:1], Segment(Op.ROWS, 1, 0, 1, Want.LAST))
    old.close()
    new.step(H_RD[1:2], Segment(Op.ROWS, 1, 1, 1, Want.LAST))
    new.close()


def test_a_worker_says_at_once_that_the_one_before_it_hung_up(start: Start) -> None:
    first, last = start(2)
    ring = Ring([first, last], [0, 2, 4])
    first.engine.sessions.all()[0].following.close()  # type: ignore[union-attr]
    assert fault(ring.links[1]).culprit == "lost"
    ring.close()
