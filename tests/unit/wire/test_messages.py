"""Messages come back as they were sent, and nothing else passes for one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sharedllm.wire import (
    Adapter,
    Adopted,
    Attach,
    BadFrame,
    Fault,
    Hello,
    Message,
    Note,
    Open,
    Opened,
    Pong,
    Welcome,
)

MESSAGES: list[Message] = [
    Hello([1, 2]),
    Welcome(1),
    Open("p" * 32, "toy", "ab" * 32, 0, 4, None, {}),
    Open("p" * 32, "toy", "ab" * 32, 0, 4, {"node": "x", "endpoints": [{"port": 1}]}, {"4": "fp16"}),
    Opened(4096, 512, 0.5, 2, True, 576, 64),
    Adapter(7, "ab" * 32, 3, 576),
    Adopted(7),
    Attach("p" * 32, 4),
    Fault("The worker's memory is full – മതി.", "here"),
    Note(7, "req-1"),
    Pong(0.25, 9, 3),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    assert type(message).from_bytes(message.to_bytes()) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_missing_or_an_unknown_field_is_refused(message: Message) -> None:
    fields = json.loads(message.to_bytes())
    first = next(iter(fields))
    for changed in ({**fields, "extra": 1}, {k: v for k, v in fields.items() if k != first}):
        with pytest.raises(BadFrame, match="other fields"):
            type(message).from_bytes(json.dumps(changed).encode())


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        (Welcome, "version", True),
        (Welcome, "version", 1.0),
        (Welcome, "version", -1),
        (Welcome, "version", 1 << 63),
        (Welcome, "version", None),
        (Hello, "versions", 1),
        (Hello, "versions", ["1"]),
        (Attach, "pipeline", 1),
        (Attach, "pipeline", "\ud800"),
        (Open, "next", []),
        (Open, "roundings", {"1": 2}),
        (Opened, "steady", 1),
        (Pong, "busy_s", "0"),
        (Pong, "busy_s", False),
        (Pong, "busy_s", float("nan")),
        (Pong, "busy_s", float("inf")),
        (Pong, "busy_s", 10**400),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(cls: type[Message], field: str, value: Any) -> None:
    example = next(message for message in MESSAGES if type(message) is cls)
    with pytest.raises(BadFrame, match=f"The {field} of a {cls.__name__}"):
        cls.from_bytes(json.dumps({**json.loads(example.to_bytes()), field: value}).encode())


def test_a_whole_number_of_seconds_is_a_number_of_seconds() -> None:
    assert Pong.from_bytes(b'{"busy_s":2,"step":0,"queued":0}').busy_s == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b'"versions"',
        b"\xff\xfe",
        '{"versions":[1]}'.encode("utf-16"),
        b'{"versions":' + b"[" * 60_000,
        b'{"versions":[' + b"9" * 50_000 + b"]}",
    ],
    ids=lambda data: data[:16].hex() or "empty",
)
def test_what_is_no_json_object_of_this_kind_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrame, match="Hello"):
        Hello.from_bytes(data)
