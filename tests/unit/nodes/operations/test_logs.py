"""A record is one line, says whose it is and which request it belongs to, and can't be forged by a peer."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedllm.nodes.operations import logs


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    yield
    root.handlers[:], root.level = handlers, level
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)


def writing(as_json: bool | None) -> io.StringIO:
    written = io.StringIO()
    logs.setup("worker", "attic", json=as_json, stream=written)
    return written


def test_without_a_terminal_a_record_is_json_with_role_node_and_time() -> None:
    written = writing(None)
    logging.getLogger("a.b").info("took %d layers", 10, extra={"start": 0})
    record = json.loads(written.getvalue())
    assert record.pop("time").endswith("Z")
    assert record == {
        "level": "info",
        "role": "worker",
        "node": "attic",
        "logger": "a.b",
        "message": "took 10 layers",
        "start": 0,
    }


def test_a_readable_record_is_a_line_with_its_fields() -> None:
    written = writing(False)
    logging.getLogger("a.b").info("ready", extra={"port": 1})
    assert written.getvalue().endswith("info     attic: ready port=1\n")


def test_a_record_inside_a_request_carries_its_id() -> None:
    written = writing(True)
    with logs.request("req-1"):
        logging.getLogger("x").info("inside")
    logging.getLogger("x").info("outside")
    inside, outside = map(json.loads, written.getvalue().splitlines())
    assert (inside["request_id"], "request_id" in outside) == ("req-1", False)


@pytest.mark.parametrize("given_id", [None, "", "a b", "x" * 65, "a\nb", "<script>"])
def test_an_unusable_request_id_is_replaced(given_id: str | None) -> None:
    accepted = logs.accept_request_id(given_id)
    assert accepted != given_id
    assert logs.accept_request_id(accepted) == accepted


@given(st.text(max_size=60), st.booleans())
def test_what_a_peer_sends_stays_one_record_and_moves_no_cursor(sent: str, as_json: bool) -> None:
    written = writing(as_json)
    logging.getLogger("x").info("peer said %s", sent)
    lines = written.getvalue().removesuffix("\n").split("\n")
    assert all(line.startswith("    ") for line in lines[1:])
    assert not any((ord(c) < 32 and c != "\t") or 127 <= ord(c) < 160 for line in lines for c in line)


def test_a_call_with_wrong_arguments_still_says_something() -> None:
    written = writing(True)
    logging.getLogger("x").info("%d layers", "ten")
    assert "layers" in json.loads(written.getvalue())["message"]


def test_a_huge_message_is_cut() -> None:
    written = writing(True)
    logging.getLogger("x").info("x" * 100_000)
    assert len(written.getvalue()) < 10_000


def test_warnings_are_records() -> None:
    written = writing(True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("it is getting late", stacklevel=1)
    assert "it is getting late" in json.loads(written.getvalue())["message"]


def test_an_uncaught_exception_is_a_record_without_its_secret() -> None:
    code = (
        "from sharedllm.nodes.operations import logs\n"
        "logs.setup('worker', 'attic')\n"
        "raise RuntimeError('SL1-' + 'a' * 64)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    record = json.loads(done.stderr)
    assert record["level"] == "critical"
    assert "RuntimeError: [redacted]" in record["error"]


def test_the_room_imports_neither_torch_nor_a_web_framework() -> None:
    code = (
        "import sys, sharedllm.nodes.operations; print({'torch', 'fastapi', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
