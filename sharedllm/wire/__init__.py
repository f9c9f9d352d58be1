"""The wire: frames between nodes, and how hidden states become bytes. It knows no model and no certificate.

A frame's lengths are checked before memory is taken, its epoch says which pipeline it belongs to, and a
rollback of cached positions is part of the protocol's first version. Only ``engines`` and ``nodes`` use it.

Bets that rest on it: b005 (handoff), b045 (throttle), b063 (what rounding hidden states costs).
"""

from sharedllm.wire.codec import Codec, decode, encode, encoded_bytes, rounded
from sharedllm.wire.errors import BadFrame, LinkClosed
from sharedllm.wire.frames import HEADER_BYTES, VERSION, Frame, Header, Kind, read_header
from sharedllm.wire.limits import DEFAULT_LIMITS, Limits
from sharedllm.wire.link import Link
from sharedllm.wire.messages import (
    Adapter,
    Adopted,
    Attach,
    Fault,
    Hello,
    Message,
    Note,
    Open,
    Opened,
    Pong,
    Welcome,
)
from sharedllm.wire.steps import Hop, Op, Segment, StepMeta, Want

__all__ = [
    "DEFAULT_LIMITS",
    "HEADER_BYTES",
    "VERSION",
    "Adapter",
    "Adopted",
    "Attach",
    "BadFrame",
    "Codec",
    "Fault",
    "Frame",
    "Header",
    "Hello",
    "Hop",
    "Kind",
    "Limits",
    "Link",
    "LinkClosed",
    "Message",
    "Note",
    "Op",
    "Open",
    "Opened",
    "Pong",
    "Segment",
    "StepMeta",
    "Want",
    "Welcome",
    "decode",
    "encode",
    "encoded_bytes",
    "read_header",
    "rounded",
]
