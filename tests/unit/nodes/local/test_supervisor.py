"""Several children start as one, come back when they die, and end in order."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sharedllm.nodes.local import ProcessFailed, Supervisor

DEADLINE_S = 30.0
SERVE = "print('ready http://127.0.0.1:1', flush=True); import time; time.sleep(600)"


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


class Told:
    """What was said, as it is said."""

    def __init__(self) -> None:
        self.sentences: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __call__(self, sentence: str) -> None:
        self.sentences.put(sentence)

    def next(self) -> str:
        return self.sentences.get(timeout=DEADLINE_S)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def supervisor(tmp_path: Path, told: Told) -> Iterator[Supervisor]:
    with Supervisor(tmp_path, say=told, backoff_s=(0.01, 0.04)) as made:
        yield made


@contextlib.contextmanager
def supervising(supervisor: Supervisor) -> Iterator[None]:
    thread = threading.Thread(target=supervisor.supervise)
    thread.start()
    try:
        yield
    finally:
        supervisor.call_off()
        thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_each_process_is_named_as_it_becomes_ready(supervisor: Supervisor, told: Told) -> None:
    supervisor.start([supervisor.add(name, lambda url: python(SERVE)) for name in ("a", "b")], DEADLINE_S)
    said = sorted([told.next(), told.next()])
    assert [line.split(" (pid")[0] for line in said] == [
        "a is ready at http://127.0.0.1:1",
        "b is ready at http://127.0.0.1:1",
    ]


def test_a_start_fails_with_the_first_that_ends(supervisor: Supervisor) -> None:
    good = supervisor.add("good", lambda url: python("import time; time.sleep(600)"))
    bad = supervisor.add("bad", lambda url: python("import sys; sys.exit('no memory')"))
    with pytest.raises(ProcessFailed, match=r"bad ended with exit code 1\..*no memory"):
        supervisor.start([good, bad], DEADLINE_S)


def test_a_start_that_takes_too_long_names_who_is_not_ready(supervisor: Supervisor) -> None:
    slow = supervisor.add("slow", lambda url: python("import time; time.sleep(600)"))
    with pytest.raises(ProcessFailed, match=r"slow was not ready after 0 s"):
        supervisor.start([slow], 0)


def test_a_start_can_be_called_off(supervisor: Supervisor) -> None:
    slow = supervisor.add("slow", lambda url: python("import time; time.sleep(600)"))
    supervisor.call_off()
    with pytest.raises(ProcessFailed, match="called off"):
        supervisor.start([slow], DEADLINE_S)


def test_a_process_that_dies_is_brought_back_with_a_sentence(supervisor: Supervisor, told: Told) -> None:
    process = supervisor.add("a", lambda url: python(SERVE))
    supervisor.start([process], DEADLINE_S)
    told.next()
    with supervising(supervisor):
        first = process.pid
        os.kill(first, signal.SIGKILL)
        assert told.next().startswith("a ended by SIGKILL. Its log")
        assert told.next().startswith("a is ready at")
    assert process.running
    assert process.pid != first


def test_a_process_that_keeps_dying_is_tried_less_and_less_often(supervisor: Supervisor, told: Told) -> None:
    process = supervisor.add("a", lambda url: python("" if url else "print('ready http://x:1', flush=True)"))
    supervisor.start([process], DEADLINE_S)
    assert told.next().startswith("a is ready")
    with supervising(supervisor):
        waits = [told.next().rsplit("again in ", 1)[1] for _ in range(4)]
    assert waits == ["0.01 s.", "0.02 s.", "0.04 s.", "0.04 s."]


def test_a_process_that_was_told_to_end_stays_ended(supervisor: Supervisor, told: Told) -> None:
    ended, other = (supervisor.add(name, lambda url: python(SERVE)) for name in ("ended", "other"))
    supervisor.start([ended, other], DEADLINE_S)
    told.next(), told.next()
    with supervising(supervisor):
        ended.kill()
        os.kill(other.pid, signal.SIGKILL)  # its return shows that the first one's end was dealt with
        assert told.next().startswith("other ended")
        assert told.next().startswith("other is ready")
    assert not ended.running


def test_processes_end_the_last_first(tmp_path: Path) -> None:
    order = tmp_path / "order"
    code = (
        "import os, signal, sys\n"
        "def end(*_):\n"
        "    with open(sys.argv[1], 'a') as file: file.write(sys.argv[2])\n"
        "    os._exit(0)\n"
        "signal.signal(15, end)\n" + SERVE
    )
    with Supervisor(tmp_path) as supervisor:
        for name in "abc":
            supervisor.add(name, lambda url, name=name: python(code, str(order), name))  # type: ignore[misc]
        supervisor.start(supervisor.processes, DEADLINE_S)
    assert order.read_text() == "cba"
