"""One line per record on stderr: readable on a terminal, JSON otherwise, with a request's id and no secret.

*Covered*: third-party loggers, warnings, uncaught exceptions of any thread; control characters and line
breaks in what a peer sent (they can't forge a record or move a cursor). *Not covered*: what another library
writes to stderr without ``logging``.
"""

from __future__ import annotations

import contextlib
import json as _json
import logging
import re
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TextIO

from sharedllm.nodes.operations.redaction import redact, redact_value

__all__ = ["accept_request_id", "request", "request_id", "setup"]

request_id: ContextVar[str] = ContextVar("request_id", default="")

_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_MAX_TEXT = 8192  # characters; a peer must not fill a disk with one record
_QUIET = ("httpx", "httpcore", "uvicorn.access", "asyncio", "urllib3")


def setup(role: str, name: str, json: bool | None = None, stream: TextIO | None = None) -> None:
    """Send every record of this process to ``stream`` (stderr); ``json`` None means: not on a terminal."""
    stream = stream or sys.stderr
    as_json = not stream.isatty() if json is None else json
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JSON(role, name) if as_json else _Readable(role, name))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for noisy in _QUIET:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


@contextlib.contextmanager
def request(identifier: str | None = None) -> Iterator[str]:
    """Give every record of this context the request's id (a new one without a usable one); yields it."""
    accepted = accept_request_id(identifier)
    token = request_id.set(accepted)
    try:
        yield accepted
    finally:
        request_id.reset(token)


def accept_request_id(given: str | None) -> str:
    """Return ``given`` if it is 1 to 64 letters, digits, dots, dashes or underscores, else a new id."""
    return given if given and _ID.fullmatch(given) else uuid.uuid4().hex


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logging.getLogger("sharedllm").critical(
        "uncaught %s", kind.__name__, exc_info=(kind, error or kind(), trace)
    )


def _facts(record: logging.LogRecord, role: str, name: str) -> dict[str, Any]:
    """Collect what a record says, without secrets; values are JSON's."""
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError):  # a call with wrong arguments must not lose the message
        message = f"{record.msg} {record.args}"
    facts: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
        "level": record.levelname.lower(),
        "role": role,
        "node": name,
        "logger": record.name,
        "message": redact(message)[:_MAX_TEXT],
    }
    if request_id.get():
        facts["request_id"] = request_id.get()
    if record.exc_info and record.exc_info[0] is not None:
        facts["error"] = redact("".join(traceback.format_exception(*record.exc_info)))[-_MAX_TEXT:]
    elif record.exc_text:
        facts["error"] = redact(record.exc_text)[-_MAX_TEXT:]
    if record.stack_info:
        facts["stack"] = redact(record.stack_info)[-_MAX_TEXT:]
    for key, value in vars(record).items():
        if key not in _KNOWN and key not in facts:
            facts[key] = redact_value(key, value)
    return facts


class _JSON(logging.Formatter):
    """One JSON object per line."""

    def __init__(self, role: str, name: str) -> None:
        super().__init__()
        self.role, self.name = role, name

    def format(self, record: logging.LogRecord) -> str:
        return _json.dumps(_facts(record, self.role, self.name), ensure_ascii=True, allow_nan=True)


class _Readable(_JSON):
    """Time, level, node, message, fields; continued lines are indented."""

    def format(self, record: logging.LogRecord) -> str:
        facts = _facts(record, self.role, self.name)
        clock, level = facts.pop("time")[11:19], facts.pop("level")
        facts.pop("role"), facts.pop("logger")
        node, message = facts.pop("node"), facts.pop("message")
        blocks = [str(facts.pop(key)) for key in ("error", "stack") if key in facts]
        fields = "".join(f" {key}={value}" for key, value in facts.items())
        text = "\n".join([f"{clock} {level:<8} {node}: {message}{fields}", *blocks])
        return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text).replace("\n", "\n    ").rstrip()
