"""What one step asks of every worker on its way: which rows of the tensor belong where, and what to forget.

A step is a list of *segments*. Those that compute (ROWS, CHUNK) own consecutive rows of the body; the others
(ROLLBACK, FORK, FREE, WEAR) own none. They act in their order, and every worker of the ring sees the same
segments in the same order, so all caches stay alike without any other message.

- CHUNK: rows of a prompt, attended to in one go.
- ROWS: rows that were, or might have been, computed one at a time: each attends by itself. A token's result
  is then the same bits whether it was decoded alone, in a batch, or replayed after a failure.
- ROLLBACK: forget the last ``start`` positions of ``slot`` (failover, speculation).
- FORK: let ``slot`` begin with the first ``start`` positions of ``source``, and wear what it wears (shared
  prompts).
- FREE: forget ``slot``.
- WEAR: let ``slot``, which must hold no position, wear the adapter of number ``source`` from its first row
  on; 0 is the base.

*Covered*: counts and lengths that do not add up, unknown operations, more segments, rows or hops than the
limits allow. *Not covered*: whether a slot exists or a position fits (the engine knows).
"""

from __future__ import annotations

import dataclasses
import enum
import struct

from sharedllm.wire.codec import Codec
from sharedllm.wire.errors import BadFrame
from sharedllm.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["Hop", "Op", "Segment", "StepMeta", "Want"]

_FIXED = struct.Struct("<HHBxHII")  # segments, hops, codec, –, width, rows, traced rows
_SEGMENT = struct.Struct("<BBHIII")  # op, want, rows, slot, start, source
_HOP = struct.Struct("<HHIII")  # start, stop, compute, wait, queue


class Op(enum.IntEnum):
    """What a segment does; see the module."""

    ROWS = 0
    CHUNK = 1
    ROLLBACK = 2
    FORK = 3
    FREE = 4
    WEAR = 5


class Want(enum.IntEnum):
    """Which of a segment's rows come back to the primary; TRACE: the last, and every layer's output."""

    NONE = 0
    LAST = 1
    ALL = 2
    TRACE = 3


@dataclasses.dataclass(frozen=True)
class Segment:
    """One operation on one slot. ``start``: first position of the rows; k of a rollback; length of a fork."""

    op: Op
    slot: int
    start: int = 0
    rows: int = 0
    want: Want = Want.NONE
    source: int = 0

    @property
    def wanted(self) -> int:
        """How many of the rows come back."""
        return {Want.NONE: 0, Want.ALL: self.rows}.get(self.want, min(self.rows, 1))


@dataclasses.dataclass(frozen=True)
class Hop:
    """What one worker spent on a step: µs of computing, µs of waiting before that, steps queued behind it."""

    start: int
    stop: int
    compute_us: int
    wait_us: int
    queued: int = 0


@dataclasses.dataclass(frozen=True)
class StepMeta:
    """The meta of STEP and RESULT: the body holds ``rows`` and then ``traced`` vectors of ``width``."""

    segments: tuple[Segment, ...]
    codec: Codec
    width: int
    rows: int
    traced: int = 0
    hops: tuple[Hop, ...] = ()

    def to_bytes(self) -> bytes:
        """Write it. Raises ``ValueError`` for a number that does not fit its field."""
        try:
            fixed = _FIXED.pack(
                len(self.segments), len(self.hops), self.codec, self.width, self.rows, self.traced
            )
            segments = [_SEGMENT.pack(s.op, s.want, s.rows, s.slot, s.start, s.source) for s in self.segments]
            hops = [_HOP.pack(h.start, h.stop, h.compute_us, h.wait_us, h.queued) for h in self.hops]
        except struct.error as error:
            raise ValueError(f"A step can't be written: {error}.") from error
        return b"".join([fixed, *segments, *hops])

    @classmethod
    def from_bytes(cls, data: bytes, limits: Limits = DEFAULT_LIMITS) -> StepMeta:
        """Read what ``to_bytes`` wrote. Raises ``BadFrame``."""
        if len(data) < _FIXED.size:
            raise BadFrame(f"A step's meta has {len(data)} bytes; it has at least {_FIXED.size}.")
        n_segments, n_hops, codec, width, rows, traced = _FIXED.unpack_from(data)
        if n_segments > limits.segments or n_hops > limits.hops or max(rows, traced) > limits.rows:
            raise BadFrame(
                f"A step has {n_segments} segments, {n_hops} hops, {rows} rows and {traced} traced rows; at "
                f"most {limits.segments}, {limits.hops} and twice {limits.rows} are taken."
            )
        expected = _FIXED.size + n_segments * _SEGMENT.size + n_hops * _HOP.size
        if len(data) != expected:
            raise BadFrame(f"A step's meta has {len(data)} bytes, but its counts say {expected}.")
        at = _FIXED.size + n_segments * _SEGMENT.size
        try:
            segments = tuple(
                Segment(Op(op), slot, start, rows_, Want(want), source)
                for op, want, rows_, slot, start, source in _SEGMENT.iter_unpack(data[_FIXED.size : at])
            )
            meta = cls(segments, Codec(codec), width, rows, traced)
        except ValueError as error:
            raise BadFrame(f"A step holds an unknown code: {error}.") from None
        return dataclasses.replace(meta, hops=tuple(Hop(*hop) for hop in _HOP.iter_unpack(data[at:])))
