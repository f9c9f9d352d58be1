"""Adapters reach an engine on the primary's own connection, and are gone with the pipeline."""

from __future__ import annotations

import dataclasses
import functools
import gc
import weakref
from collections.abc import Iterator

import pytest
import torch

from sharedllm.engines import Lending, Stage, lent
from sharedllm.errors import BadAdapter
from sharedllm.wire import Adapter, Adopted, Attach, BadFrame, Frame, Kind, Link, Op, Segment, Want
from tests.unit.engines.hosts import Host, Ring, admission, expect, fault, finder, opening, until
from tests.unit.engines.toys import Chain, adapted, delta, stage, toy

MODEL = toy("dense")
H_RD = MODEL.embed(torch.randint(0, 90, (9,), generator=torch.Generator().manual_seed(1)))
CHUNK = Segment(Op.CHUNK, 1, 0, 9, Want.ALL)


@functools.cache
def part(start: int, stop: int) -> Stage:
    return stage(MODEL, start, stop)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host(finder(part))
    yield host
    host.close()


def frame(number: int, start: int = 0, stop: int = 4, step: int = 1, epoch: int = 1) -> Frame:
    return dataclasses.replace(lent(number, delta("dense", number), start, stop, 48), epoch=epoch, step=step)


def lend(link: Link, *place: int) -> None:
    link.post(frame(*place))
    assert Adopted.from_bytes(expect(link, Kind.ADOPTED).meta).number == place[0]


def test_a_ring_wears_what_was_lent_to_each_of_its_workers() -> None:
    hosts = [Host(finder(part)) for _ in range(2)]
    ring = Ring(hosts, [0, 1, 4])
    lend(ring.links[0], 5, 0, 1)
    lend(ring.links[1], 5, 1, 4)
    came = ring.step(H_RD, Segment(Op.WEAR, 1, source=5), CHUNK)
    assert torch.equal(came, Chain([stage(adapted("dense", 5), 0, 4)]).step(H_RD, CHUNK))
    ring.close()
    for host in hosts:
        host.close()


def test_an_answer_carries_the_step_and_the_epoch_of_what_it_answers(host: Host) -> None:
    ring = Ring([host], [0, 4], epoch=6)
    ring.links[0].post(frame(2, step=77, epoch=6))
    answer = expect(ring.links[0], Kind.ADOPTED)
    assert (answer.epoch, answer.step) == (6, 77)
    ring.close()


def test_how_many_can_be_lent_is_said_when_a_pipeline_is_opened(host: Host) -> None:
    ring = Ring([host], [0, 4])
    work = host.engine.sessions.all()[0].work
    assert ring.opened[0].adapters == work.slots.wardrobe.budget_bytes // (8 * 48 * 4) > 0
    ring.close()


def test_memory_for_adapters_is_part_of_what_a_worker_gives(host: Host) -> None:
    first = Ring([host], [0, 4])
    granted = host.engine.sessions._granted_bytes(None)
    work = host.engine.sessions.all()[0].work
    caches = work.slots.budget * part(0, 4).kv_bytes_per_token
    assert granted == caches + work.slots.wardrobe.budget_bytes
    assert granted + part(0, 4).weights_bytes <= host.engine.sessions.memory_bytes
    first.close()


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (frame(3, 0, 3), "for 3 layers of width 48; this span has 4 of 48"),
        (dataclasses.replace(frame(3), body=frame(4).body), "not what its hash says"),
        (dataclasses.replace(frame(3), meta=b"{}"), "A Adapter message has other fields"),
        (dataclasses.replace(frame(3), body=b"1234"), "4 came"),
        (frame(3, epoch=2), "of epoch 2 came to a pipeline of epoch 1"),
    ],
    ids=["span", "hash", "meta", "body", "epoch"],
)
def test_an_adapter_that_does_not_fit_is_the_requests_fault(host: Host, bad: Frame, sentence: str) -> None:
    ring = Ring([host], [0, 4])
    ring.links[0].post(bad)
    said = fault(ring.links[0])
    assert said.culprit == "request"
    assert sentence in said.sentence
    ring.close()


def test_the_worker_before_can_not_lend(host: Host) -> None:
    primary, before = host.link(), host.link()
    primary.post(Frame(Kind.OPEN, 1, meta=opening(2, 4, None).to_bytes()))
    expect(primary, Kind.OPENED)
    before.post(Frame(Kind.ATTACH, 1, meta=Attach(admission()["pipeline"], 2).to_bytes()))
    expect(before, Kind.ATTACHED)
    before.post(frame(3, 2, 4))
    assert "A ADAPTER frame came where none may" in fault(before).sentence
    before.close()
    primary.close()


def test_nothing_can_be_lent_before_a_pipeline_is_open(host: Host) -> None:
    link = host.link()
    link.post(dataclasses.replace(frame(3), body=b""))
    assert "A ADAPTER frame came where none may" in fault(link).sentence
    link.close()


def test_a_pipeline_that_is_opened_anew_has_no_adapter(host: Host) -> None:
    old = Ring([host], [0, 4], epoch=1)
    lend(old.links[0], 5)
    new = Ring([host], [0, 4], epoch=2)
    new.send(H_RD, Segment(Op.WEAR, 1, source=5), CHUNK)
    assert "Adapter 5 was not lent to this pipeline" in fault(new.links[0]).sentence
    old.close()
    new.close()


def test_nothing_of_an_adapter_is_left_when_its_pipeline_is_closed(host: Host) -> None:
    ring = Ring([host], [0, 4])
    lend(ring.links[0], 5)
    ring.step(H_RD, Segment(Op.WEAR, 1, source=5), CHUNK)
    wardrobe = weakref.ref(host.engine.sessions.all()[0].work.slots.wardrobe)
    assert wardrobe() is not None
    ring.close()
    assert until(lambda: gc.collect() >= 0 and wardrobe() is None)


def test_more_adapters_than_fit_end_the_pipeline_with_a_sentence() -> None:
    host = Host(finder(part), part(0, 4).weights_bytes + 500 * part(0, 4).kv_bytes_per_token)
    ring = Ring([host], [0, 4])
    most = ring.opened[0].adapters
    for number in range(1, most + 1):
        lend(ring.links[0], number)
    ring.links[0].post(frame(most + 1))
    assert f"holds {most} adapters of 1,536 bytes" in fault(ring.links[0]).sentence
    ring.close()
    host.close()


def test_what_is_lent_are_the_gains_of_the_layers_alone_in_their_order() -> None:
    frame = lent(4, delta("dense", 4), 1, 3, 48)
    meta = Adapter.from_bytes(frame.meta)
    assert (meta.number, meta.layers, meta.width, len(frame.body)) == (4, 2, 48, 4 * 48 * 4)
    sent_GD = torch.frombuffer(bytearray(frame.body), dtype=torch.float32).view(4, 48)
    names = [f"blocks.{i}.{norm}_norm.weight" for i in (1, 2) for norm in ("attention", "feedforward")]
    assert torch.equal(sent_GD, torch.stack([delta("dense", 4)[name] for name in names]))


@pytest.mark.parametrize("wrong", [None, torch.zeros(47), torch.full((48,), torch.nan)])
def test_gains_that_do_not_fit_are_not_sent(wrong: torch.Tensor | None) -> None:
    name, given = "blocks.2.feedforward_norm.weight", delta("dense", 1)
    given.pop(name)
    with pytest.raises(BadAdapter, match=f"can't be lent: its {name}"):
        lent(1, given if wrong is None else {**given, name: wrong}, 0, 4, 48)
    lent(1, given, 0, 2, 48)


def answer(number: int, step: int) -> Frame:
    return Frame(Kind.ADOPTED, 1, step, Adopted(number).to_bytes())


def test_only_the_last_answer_lets_things_go_on() -> None:
    lending, done = Lending(), list[int]()
    first = lending.begin(5, ["a", "b"], lambda: done.append(5))
    second = lending.begin(6, ["a"], lambda: done.append(6))
    assert lending.adopted("a", answer(5, first)) is None
    for node, number, step in (("a", 6, second), ("b", 5, first)):
        then = lending.adopted(node, answer(number, step))
        assert then is not None
        then()
    assert done == [6, 5]


@pytest.mark.parametrize(("node", "number", "step"), [("c", 5, 1), ("a", 6, 1), ("a", 5, 2)])
def test_an_answer_that_was_not_awaited_is_refused(node: str, number: int, step: int) -> None:
    lending = Lending()
    assert lending.begin(5, ["a", "b"], lambda: None) == 1
    with pytest.raises(BadFrame, match=f"adapter {number}, which it was not sent"):
        lending.adopted(node, answer(number, step))


def test_an_answer_that_comes_twice_is_refused() -> None:
    lending = Lending()
    lending.begin(5, ["a", "b"], lambda: None)
    lending.adopted("a", answer(5, 1))
    with pytest.raises(BadFrame, match="was not sent"):
        lending.adopted("a", answer(5, 1))


def test_those_who_owe_an_answer_are_known() -> None:
    lending = Lending()
    lending.begin(5, ["a", "b"], lambda: None)
    assert lending.late(60.0) == set()
    lending.adopted("a", answer(5, 1))
    assert lending.late(-1.0) == {"b"}
    lending.adopted("b", answer(5, 1))
    assert lending.late(-1.0) == set()
