"""The JSON that opens and ends pipelines: few messages, strict on both sides, none larger than a meta.

*Covered*: missing, unknown and mistyped fields, depth, anything that is no JSON object: ``BadFrame``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Self

from sharedllm.wire.errors import BadFrame

__all__ = [
    "Adapter",
    "Adopted",
    "Attach",
    "Fault",
    "Hello",
    "Message",
    "Note",
    "Open",
    "Opened",
    "Pong",
    "Welcome",
]


@dataclasses.dataclass(frozen=True)
class Message:
    """A flat JSON object, one key per field."""

    def to_bytes(self) -> bytes:
        """Write it as compact JSON."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` wrote. Raises ``BadFrame``."""
        try:
            given = json.loads(data.decode())
        except (ValueError, RecursionError):
            raise BadFrame(f"A {cls.__name__} message is no JSON.") from None
        hints = typing.get_type_hints(cls)
        if not isinstance(given, dict) or given.keys() != hints.keys():
            raise BadFrame(f"A {cls.__name__} message has other fields than {', '.join(hints)}.")
        for name, hint in hints.items():
            if not _fits(given[name], hint):
                raise BadFrame(f"The {name} of a {cls.__name__} message is not what it must be ({hint}).")
        return cls(**given)


@dataclasses.dataclass(frozen=True)
class Hello(Message):
    """Which versions the caller speaks."""

    versions: list[int]


@dataclasses.dataclass(frozen=True)
class Welcome(Message):
    """Which version is used."""

    version: int


@dataclasses.dataclass(frozen=True)
class Open(Message):
    """Take layers ``[start, stop)`` of a model for a pipeline.

    ``model`` is the hash of its weights, ``name`` where they may be found. ``next``: how to reach the worker
    behind this one (what the dialler needs; the wire does not look inside), or None for the last.
    ``roundings``: the codec by name at every layer border where hidden states are rounded.
    """

    pipeline: str
    name: str
    model: str
    start: int
    stop: int
    next: dict[str, Any] | None
    roundings: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Opened(Message):
    """The span is live. ``kv_tokens``: positions that its memory holds; ``load_s``: what loading took.

    ``steady``: whether this machine's products give a row the same bits in any batch (measured at loading).
    ``adapters``: how many may be lent to the pipeline here at a time.
    """

    kv_tokens: int
    kv_bytes_per_token: int
    load_s: float
    threads: int
    steady: bool
    width: int
    adapters: int


@dataclasses.dataclass(frozen=True)
class Attach(Message):
    """The worker before this one in a pipeline takes its place."""

    pipeline: str
    stop: int


@dataclasses.dataclass(frozen=True)
class Fault(Message):
    """What went wrong, and whose fault it is, seen from the sender.

    ``culprit``: ``here``, ``next``, ``request``, ``previous`` (it sent nonsense) or ``lost`` (it is gone).
    """

    sentence: str
    culprit: str


@dataclasses.dataclass(frozen=True)
class Note(Message):
    """From now on ``slot`` belongs to ``request``, whose id may be logged."""

    slot: int
    request: str


@dataclasses.dataclass(frozen=True)
class Adapter(Message):
    """From now on ``number`` (1 to 2³² − 1) names these gains; of no ``layers``: it is forgotten.

    The body holds what they add to the base's, attention norm and feed-forward norm of each layer in turn:
    ``2 · layers`` vectors of ``width`` in fp32, little-endian. ``sha256`` is the body's, in hex.
    """

    number: int
    sha256: str
    layers: int
    width: int


@dataclasses.dataclass(frozen=True)
class Adopted(Message):
    """The gains of that number lie ready here; steps that are sent now may have slots wear them."""

    number: int


@dataclasses.dataclass(frozen=True)
class Pong(Message):
    """Alive. ``busy_s``: for how long the step in work has been computed (0: idle); ``step``: which it is."""

    busy_s: float
    step: int
    queued: int


def _fits(value: Any, hint: Any) -> bool:
    """Say whether a JSON value is of a field's type (a float may be written as an integer)."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if hint is Any:
        return True
    if origin is list:
        return isinstance(value, list) and all(_fits(v, typing.get_args(hint)[0]) for v in value)
    if origin is dict:
        return isinstance(value, Mapping) and all(_fits(v, typing.get_args(hint)[1]) for v in value.values())
    if hint is float:
        return _fits(value, int) or (isinstance(value, float) and math.isfinite(value))
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
    if hint is str:
        return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)  # UTF-8 has none
    return isinstance(value, hint)
