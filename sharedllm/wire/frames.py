"""A frame: 28 bytes of header, then *meta* (small, typed), then *body* (raw tensor bytes).

```
bytes  0–1   "SL"
       2     version of the protocol
       3     kind
       4–7   bytes of meta            8–11  bytes of body           (little-endian, all of them)
      12–19  epoch                   20–27  step
```

The epoch is on every frame: a pipeline that was replaced can never be taken for the one that replaced it.

*Covered*: a header that is not ours, a version or kind that is unknown, lengths above the limits: each is
refused before anything of that length is allocated. *Not covered*: who sent it (TLS and the ticket do that).
"""

from __future__ import annotations

import dataclasses
import enum
import struct

from sharedllm.wire.errors import BadFrame
from sharedllm.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["HEADER_BYTES", "VERSION", "Frame", "Header", "Kind", "read_header"]

VERSION = 2
_MAGIC = b"SL"
_HEADER = struct.Struct("<2sBBIIQQ")
HEADER_BYTES = _HEADER.size
_MOST = (1 << 64) - 1


class Kind(enum.IntEnum):
    """What a frame is for. STEP and RESULT carry a ``StepMeta`` in their meta, all others JSON or nothing."""

    HELLO = 1  # the caller: which versions it speaks
    WELCOME = 2  # the callee: which of them is used
    OPEN = 3  # primary to worker: take this span
    OPENED = 4  # worker to primary: taken; how many positions fit
    ATTACH = 5  # worker to the next one: I am what comes before you in this pipeline
    ATTACHED = 6
    STEP = 7  # hidden states on their way through the ring
    RESULT = 8  # hidden states, back at the primary
    FAULT = 9  # a sentence: what went wrong, and whose fault it is
    PING = 10
    PONG = 11
    CLOSE = 12  # the pipeline is over, forget its caches; from a worker: please move it elsewhere
    NOTE = 13  # round the ring: which request a slot belongs to, for the logs
    ADAPTER = 14  # primary to worker: gains of its span, which slots may wear by number; fp32 in the body
    ADOPTED = 15  # worker to primary: they lie ready


@dataclasses.dataclass(frozen=True)
class Header:
    """The first 28 bytes of a frame, checked."""

    kind: Kind
    meta_bytes: int
    body_bytes: int
    epoch: int
    step: int


@dataclasses.dataclass(frozen=True)
class Frame:
    """One message. ``body`` is any bytes-like object; it is sent as it lies in memory."""

    kind: Kind
    epoch: int = 0
    step: int = 0
    meta: bytes = b""
    body: bytes | bytearray | memoryview = b""

    def head(self) -> bytes:
        """The header of this frame. Raises ``ValueError`` for an epoch or step beyond 64 bits."""
        if not (0 <= self.epoch <= _MOST and 0 <= self.step <= _MOST):
            raise ValueError(f"Epoch {self.epoch} or step {self.step} does not fit 64 bits.")
        size = memoryview(self.body).nbytes
        return _HEADER.pack(_MAGIC, VERSION, self.kind, len(self.meta), size, self.epoch, self.step)


def read_header(data: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Check 28 bytes and say what follows them. Raises ``BadFrame``."""
    if len(data) != HEADER_BYTES:
        raise BadFrame(f"A frame's header has {len(data)} bytes; expected {HEADER_BYTES}.")
    magic, version, kind, meta_bytes, body_bytes, epoch, step = _HEADER.unpack(data)
    if magic != _MAGIC:
        raise BadFrame(
            f"A frame began with {magic!r}; expected {_MAGIC!r}. The other side speaks no SharedLLM."
        )
    if version != VERSION:
        raise BadFrame(f"A frame has version {version}; this node speaks {VERSION}. Update the older node.")
    try:
        known = Kind(kind)
    except ValueError:
        raise BadFrame(f"A frame is of kind {kind}, which version {VERSION} does not have.") from None
    if meta_bytes > limits.meta_bytes or body_bytes > limits.body_bytes:
        raise BadFrame(
            f"A frame announces {meta_bytes:,} bytes of meta and {body_bytes:,} of body; at most "
            f"{limits.meta_bytes:,} and {limits.body_bytes:,} are taken."
        )
    return Header(known, meta_bytes, body_bytes, epoch, step)
