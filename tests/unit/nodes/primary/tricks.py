"""What a broken or malicious node may do instead of computing a step."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

import torch

from sharedllm.engines.sessions import Session
from sharedllm.wire import Codec, Frame, Kind, LinkClosed, Op, Segment, StepMeta, encode
from tests.unit.nodes.primary.threads import Node, Trick

Change = Callable[[Frame, StepMeta], Frame]


def dies(node: Node, session: Session, frame: Frame) -> bool:
    """End as if killed, with a step in hand."""
    node.place.lose(node.name)
    return True


def freezes(node: Node, session: Session, frame: Frame) -> bool:
    """Answer nothing any more, neither steps nor pings."""
    node.awake.clear()
    node.awake.wait()
    return True


def hangs(node: Node, session: Session, frame: Frame) -> bool:
    """Go on answering pings, but never finish a step."""
    node.ended.wait()
    return True


def leaves(node: Node, session: Session, frame: Frame) -> bool:
    """Ask to be relieved, as on SIGTERM; the coordinator plans without it from now on."""
    node.place.nodes.pop(node.name, None)
    node.ask_to_leave()
    return False


def computed(change: Change) -> Trick:
    """Compute, and change what is sent on."""

    def trick(node: Node, session: Session, frame: Frame) -> bool:
        given = StepMeta.from_bytes(frame.meta)
        meta, body = session.work.step(given, frame.body, 0.0, 0)
        kind = Kind.RESULT if session.following is None else Kind.STEP
        session.out.post(change(Frame(kind, frame.epoch, frame.step, meta.to_bytes(), body), meta))
        return True

    return trick


def _with(frame: Frame, meta: StepMeta, value: float = 0.0) -> Frame:
    body = encode(torch.full((meta.rows + meta.traced, meta.width), value), meta.codec)
    return dataclasses.replace(frame, meta=meta.to_bytes(), body=body)


def not_numbers(frame: Frame, meta: StepMeta) -> Frame:
    """Every number is NaN."""
    return _with(frame, dataclasses.replace(meta, codec=Codec.FP32), float("nan"))


def too_many_rows(frame: Frame, meta: StepMeta) -> Frame:
    """One row more than is wanted."""
    return _with(frame, dataclasses.replace(meta, rows=meta.rows + 1))


def too_wide(frame: Frame, meta: StepMeta) -> Frame:
    """Rows of another width."""
    return _with(frame, dataclasses.replace(meta, width=meta.width + 1))


def other_segments(frame: Frame, meta: StepMeta) -> Frame:
    """The result of some other step."""
    return _with(frame, dataclasses.replace(meta, segments=(Segment(Op.ROWS, 9, 1, 1), *meta.segments[1:])))


def cut_short(frame: Frame, meta: StepMeta) -> Frame:
    """A body that is shorter than its meta says."""
    return dataclasses.replace(frame, body=bytes(frame.body)[:-2])


def no_meta(frame: Frame, meta: StepMeta) -> Frame:
    """A meta that is none."""
    return dataclasses.replace(frame, meta=b"\xff" * 40)


def not_asked_for(frame: Frame, meta: StepMeta) -> Frame:
    """The right numbers for a step that nobody sent."""
    return dataclasses.replace(frame, step=frame.step + 1000)


def another_kind(frame: Frame, meta: StepMeta) -> Frame:
    """A frame that has no business there."""
    return Frame(Kind.ATTACHED, frame.epoch, frame.step)


def no_traces(frame: Frame, meta: StepMeta) -> Frame:
    """The result alone, where every layer's output was wanted."""
    return frame if not meta.traced else _with(frame, dataclasses.replace(meta, traced=0))


def no_frame(node: Node, session: Session, frame: Frame) -> bool:
    """Bytes that are no frame at all."""
    with session.primary._order:
        session.primary._outbox.append(memoryview(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"\0" * 64))
        session.primary._flush()
    return True


def twice(node: Node, session: Session, frame: Frame) -> bool:
    """First the result of an epoch that is over, full of nonsense, then the true one."""
    given = StepMeta.from_bytes(frame.meta)
    meta, body = session.work.step(given, frame.body, 0.0, 0)
    true = Frame(Kind.RESULT, frame.epoch, frame.step, meta.to_bytes(), body)
    with contextlib.suppress(LinkClosed):  # the test may be over
        session.primary.post(dataclasses.replace(_with(true, meta, 1.0), epoch=frame.epoch - 1))
        session.primary.post(true)
    return True
