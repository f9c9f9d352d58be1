"""What an engine refuses, it refuses with a sentence, and serves all others as before."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from sharedllm.engines import NotServed, Stage
from sharedllm.wire import VERSION, Attach, Codec, Frame, Hello, Kind, Link, Note, Op, Segment, StepMeta
from tests.unit.engines.hosts import PIPELINE, SOON_S, Host, Ring, admission, expect, fault, opening, until
from tests.unit.engines.toys import stage, toy

MODEL = toy("dense")
ROW = Segment(Op.ROWS, 1, 0, 1)
H_RD = MODEL.embed(torch.tensor([5]))


@functools.cache
def part(start: int, stop: int) -> Stage:
    return stage(MODEL, start, stop)


def find(name: str, model: str, start: int, stop: int) -> Stage:
    if name == "elsewhere":
        raise NotServed("That model is not here.")
    if name == "broken":
        raise OSError("/secret/path is damaged")
    return part(start, stop)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host(find)
    yield host
    assert until(lambda: not len(host.engine.sessions))
    assert until(lambda: not host.engine._links)
    # whatever was refused, others are served
    ring = Ring([host], [0, 4], epoch=99)
    ring.step(H_RD, ROW)
    ring.close()
    host.close()


def said_of(host: Host, frame: Frame, who: dict[str, Any] | None = None) -> str:
    """What the engine answers to a first frame, before it hangs up."""
    link = host.link(who)
    link.post(frame)
    sentence = fault(link).sentence
    link.close()
    return sentence


def open_frame(epoch: int = 1, **changes: Any) -> Frame:
    return Frame(Kind.OPEN, epoch, meta=opening(0, 4, None, **changes).to_bytes())


@pytest.mark.parametrize(
    ("who", "what"),
    [
        ({"model": "cd" * 32}, "another model"),
        ({"stop": 3}, "another span"),
        ({"start": 1}, "another span"),
        ({"pipeline": "f" * 32}, "another pipeline"),
    ],
)
def test_what_the_ticket_does_not_cover_is_refused(host: Host, who: dict[str, Any], what: str) -> None:
    assert f"asked for {what} than its ticket's" in said_of(host, open_frame(), admission(**who))


@pytest.mark.parametrize(("start", "stop"), [(2, 2), (3, 1)])
def test_a_span_without_layers_is_refused(host: Host, start: int, stop: int) -> None:
    frame = Frame(Kind.OPEN, 1, meta=opening(start, stop, None).to_bytes())
    assert "another span" in said_of(host, frame)


@pytest.mark.parametrize("who", [{"model": "cd" * 32}, {"stop": 3}, {"pipeline": "f" * 32}])
def test_an_attachment_that_the_ticket_does_not_cover_takes_no_place(host: Host, who: dict[str, Any]) -> None:
    primary = host.link()
    primary.post(Frame(Kind.OPEN, 1, meta=opening(2, 4, None).to_bytes()))
    expect(primary, Kind.OPENED)
    attach = Frame(Kind.ATTACH, 1, meta=Attach(PIPELINE, 2).to_bytes())
    assert "than its ticket's" in said_of(host, attach, admission(**who))
    before = host.link()
    before.post(attach)
    expect(before, Kind.ATTACHED)
    before.close()
    primary.close()


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (Frame(Kind.STEP), "A STEP frame came where none may"),
        (Frame(Kind.NOTE, meta=Note(1, "x").to_bytes()), "A NOTE frame came where none may"),
        (Frame(Kind.RESULT), "A RESULT frame came where none may"),
        (Frame(Kind.OPEN, meta=b"{"), "A Open message is no JSON"),
        (Frame(Kind.ATTACH, meta=b"{}"), "A Attach message has other fields"),
        (open_frame(roundings={"two": "fp16"}), "no layer's number"),
        (open_frame(roundings={"2": "fp8"}), "choose fp32, fp16 or int8"),
        (open_frame(name="elsewhere"), "That model is not here"),
        (
            open_frame(next={"path": "/nowhere/e.sock", "admission": {}}),
            "next worker did not take the pipeline: [Errno 2]",
        ),
        (open_frame(next={}), "The engine failed: KeyError"),
        (Frame(Kind.OPEN, body=b"1"), "1 of body; at most 65,536 and 0 are taken"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_a_first_frame_that_makes_no_sense_is_refused(host: Host, frame: Frame, sentence: str) -> None:
    assert sentence in said_of(host, frame)


def test_what_failed_inside_is_named_without_its_secrets(host: Host) -> None:
    assert said_of(host, open_frame(name="broken")) == "The engine failed: OSError."


def test_a_pipeline_is_opened_once_per_connection(host: Host) -> None:
    link = host.link()
    link.post(open_frame())
    expect(link, Kind.OPENED)
    link.post(open_frame())
    assert "A OPEN frame came where none may" in fault(link).sentence


def test_an_epoch_that_is_over_takes_nothing_back(host: Host) -> None:
    ring = Ring([host], [0, 4], epoch=5)
    assert "Epoch 4 of this pipeline is over; it is in epoch 5" in said_of(host, open_frame(epoch=4))
    ring.step(H_RD, ROW)
    ring.close()


def test_a_step_of_another_epoch_ends_the_pipeline(host: Host) -> None:
    ring = Ring([host], [0, 4], epoch=5)
    ring.send(H_RD, ROW, epoch=4)
    assert "A step of epoch 4 came to a pipeline of epoch 5" in fault(ring.links[0]).sentence
    ring.close()


def test_a_callers_version_must_be_ours(host: Host) -> None:
    link = Link(host.raw(), "the engine")
    link.post(Frame(Kind.HELLO, meta=Hello([7, 8]).to_bytes()))
    assert f"speaks version {VERSION}" in fault(link).sentence


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        struct.pack(">I", 4097) + b" " * 4097,
        struct.pack(">I", 0xFFFFFFFF),
        struct.pack(">I", 4096) + b"[" * 4096,
        struct.pack(">I", 2) + b"{}",
        struct.pack(">I", 4) + b"null",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=lambda data: data[:8].hex() or "nothing",
)
def test_one_whom_no_proxy_admitted_is_hung_up_on(host: Host, data: bytes) -> None:
    hung_up(host, data)


def test_an_admission_with_wrong_types_is_none(host: Host) -> None:
    said = json.dumps(admission(caller=7)).encode()
    hung_up(host, struct.pack(">I", len(said)) + said)


def hung_up(host: Host, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SOON_S)
        sock.connect(str(host.path))
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n" + b"x" * 100, bytes(64), b"SL" + b"\xff" * 60])
def test_garbage_after_the_greeting_is_refused(host: Host, data: bytes) -> None:
    link = host.link()
    link._sock.send(data)
    assert "A frame" in fault(link).sentence


def test_a_step_that_is_no_step_ends_its_pipeline_only(host: Host) -> None:
    ring = Ring([host], [0, 4])
    other = host.link(admission(pipeline="f" * 32))
    other.post(open_frame(pipeline="f" * 32))
    expect(other, Kind.OPENED)
    other.post(Frame(Kind.STEP, 1, 1, meta=b"nonsense"))
    assert "A step's meta has 8 bytes" in fault(other).sentence
    ring.step(H_RD, ROW)
    other.close()
    ring.close()


def test_rows_that_are_not_numbers_are_blamed_on_who_sent_them(host: Host) -> None:
    ring = Ring([host], [0, 4])
    ring.send(torch.full((1, 48), torch.nan), ROW)
    said = fault(ring.links[0])
    assert (said.culprit, said.sentence) == ("previous", "Hidden states that are not numbers came in.")
    ring.close()


def test_a_body_larger_than_the_model_can_use_is_refused(host: Host) -> None:
    ring = Ring([host], [0, 4])
    meta = StepMeta((ROW,), Codec.FP32, 48, 1).to_bytes()
    size = 2 * 2048 * 4 * 48 + 1
    ring.links[0]._sock.send(Frame(Kind.STEP, 1, 1, meta, bytes(size)).head() + meta)
    assert f"{size:,} of body" in fault(ring.links[0]).sentence
    ring.close()


def test_a_next_worker_that_refuses_is_quoted() -> None:
    first, second = Host(find), Host(find)
    following = {"path": str(second.path), "admission": admission(pipeline="f" * 32)}
    link = first.link()
    link.post(Frame(Kind.OPEN, 1, meta=opening(0, 2, None, next=following).to_bytes()))
    assert "The next worker did not take the pipeline: Node cccccccc asked" in fault(link).sentence
    assert until(lambda: not len(first.engine.sessions))
    first.close()
    second.close()


def test_a_next_worker_that_hangs_up_is_named() -> None:
    first = Host(find)
    with socket.socket(socket.AF_UNIX) as listener:
        path = f"{first.folder.name}/n.sock"
        listener.bind(path)
        listener.listen()
        accepting = threading.Thread(target=lambda: listener.accept()[0].close())
        accepting.start()
        link = first.link()
        following = {"path": path, "admission": {}}
        link.post(Frame(Kind.OPEN, 1, meta=opening(0, 2, None, next=following).to_bytes()))
        assert "The next worker did not take the pipeline" in fault(link).sentence
        accepting.join(SOON_S)
    assert until(lambda: not len(first.engine.sessions))
    first.close()
