"""A child is awaited by what it says, ended with all it started, and never outlives its supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from sharedllm.nodes.local import Process, ProcessFailed

DEADLINE_S = 30.0
SERVE = "print('ready http://127.0.0.1:1', flush=True); import time; time.sleep(600)"
Make = Callable[..., Process]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Process] = []

    def build(code: str, *arguments: str, **more: object) -> Process:
        command = [sys.executable, "-c", code, *arguments]
        process = Process("child", lambda url: command, logs=tmp_path, spawner=spawner, **more)  # type: ignore[arg-type]
        made.append(process)
        return process

    with ThreadPoolExecutor(1) as spawner:
        yield build
        for process in made:
            process.kill()


def test_a_child_is_ready_when_it_says_so(make: Make) -> None:
    process = make(SERVE)
    process.start()
    assert process.await_ready(DEADLINE_S) == "http://127.0.0.1:1"


def test_what_else_a_child_says_is_in_its_log(make: Make) -> None:
    process = make("import sys; print('loading'); print('a warning', file=sys.stderr)")
    process.start()
    assert process.wait(DEADLINE_S)
    assert set(process.log.read_text().splitlines()) == {"loading", "a warning"}


def test_a_child_that_ends_before_it_is_ready_fails_with_its_last_words(make: Make) -> None:
    process = make("import sys; sys.exit('there is no such model')")
    process.start()
    with pytest.raises(ProcessFailed, match=r"child ended with exit code 1.*ends: there is no such model"):
        process.await_ready(DEADLINE_S)


def test_last_words_in_json_are_read_to_the_person(make: Make) -> None:
    record = {
        "level": "critical",
        "message": "uncaught OSError",
        "error": "Traceback …\n  …\nOSError: the disk is full",
    }
    process = make(f"import sys; sys.exit({json.dumps(record)!r})")
    process.start()
    with pytest.raises(ProcessFailed, match=r"ends: uncaught OSError: OSError: the disk is full\.$"):
        process.await_ready(DEADLINE_S)


def test_a_child_that_says_nothing_is_not_waited_for_for_ever(make: Make) -> None:
    process = make("import time; time.sleep(600)")
    process.start()
    with pytest.raises(ProcessFailed, match=r"child was not ready after 0 s.*is empty"):
        process.await_ready(0)


def test_what_a_child_must_not_have_in_its_arguments_comes_through_stdin(make: Make) -> None:
    process = make("print('ready', input(), flush=True); input()", stdin=lambda: "a secret\n")
    process.start()
    assert process.await_ready(DEADLINE_S) == "a secret"


def test_a_stopped_child_may_finish(make: Make) -> None:
    finish = "import signal, sys; signal.signal(15, lambda *_: sys.exit(print('finished')))\n" + SERVE
    process = make(finish)
    process.start()
    process.await_ready(DEADLINE_S)
    process.stop()
    assert "finished" in process.log.read_text()


def test_a_child_that_ignores_being_asked_is_killed(make: Make) -> None:
    process = make("import signal; signal.signal(15, signal.SIG_IGN)\n" + SERVE)
    process.start()
    process.await_ready(DEADLINE_S)
    process.stop(grace_s=0.1)
    assert not process.running
    assert "by SIGKILL" in process.obituary()


def test_a_killed_child_takes_its_descendants_with_it(make: Make) -> None:
    parent = (
        "import subprocess, sys\n"
        "program = [sys.executable, '-c', 'input()']\n"
        "child = subprocess.Popen(program, stdin=subprocess.PIPE, start_new_session=True)\n"
        "print('ready', child.pid, flush=True); child.wait()"
    )
    process = make(parent)
    process.start()
    descendant = psutil.Process(int(process.await_ready(DEADLINE_S)))
    process.kill()
    psutil.wait_procs([descendant], timeout=DEADLINE_S)
    assert not descendant.is_running()


def test_a_frozen_child_stands_still_until_it_is_thawed(make: Make) -> None:
    process = make(SERVE)
    process.start()
    process.await_ready(DEADLINE_S)
    process.freeze()
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    process.thaw()
    os.waitid(os.P_PID, process.pid, os.WCONTINUED)
    assert process.running


def test_a_frozen_child_can_be_stopped(make: Make) -> None:
    process = make(SERVE)
    process.start()
    process.await_ready(DEADLINE_S)
    process.freeze()
    process.stop()
    assert "by SIGTERM" in process.obituary()


def test_a_restarted_child_is_another_process_that_knows_where_it_was(tmp_path: Path) -> None:
    asked: list[str | None] = []

    def command(url: str | None) -> list[str]:
        asked.append(url)
        return [sys.executable, "-c", SERVE]

    with ThreadPoolExecutor(1) as spawner:
        process = Process("child", command, logs=tmp_path, spawner=spawner)
        process.start()
        process.await_ready(DEADLINE_S)
        first = process.pid
        process.restart()
        process.await_ready(DEADLINE_S)
        assert process.pid != first
        process.kill()
    assert asked == [None, "http://127.0.0.1:1"]


def test_each_start_has_a_log_of_its_own_and_old_ones_go(make: Make, tmp_path: Path) -> None:
    process = make("")
    for start in range(7):
        process.start()
        assert process.wait(DEADLINE_S)
        process.log.write_text(str(start))
    kept = {path.name: path.read_text() for path in tmp_path.glob("child*.log")}
    assert kept == {"child.log": "6", **{f"child.{age}.log": str(6 - age) for age in range(1, 5)}}


def test_a_running_child_is_not_started_twice(make: Make) -> None:
    process = make(SERVE)
    process.start()
    with pytest.raises(ProcessFailed, match=r"child runs already \(pid \d+\)"):
        process.start()


def test_a_program_that_does_not_exist_is_a_sentence(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as spawner:
        process = Process("child", lambda url: ["/no/such/program"], logs=tmp_path, spawner=spawner)
        process.start()
        with pytest.raises(ProcessFailed, match="child ended with exit code 1"):
            process.await_ready(DEADLINE_S)


def test_a_child_survives_the_thread_that_asked_for_it(make: Make) -> None:
    process = make(SERVE)
    asking = threading.Thread(target=process.start)
    asking.start()
    asking.join()
    process.await_ready(DEADLINE_S)
    assert process.running


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_child_dies_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    supervisor = (
        "import sys, pathlib\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from sharedllm.nodes.local import Process\n"
        f"command = [sys.executable, '-c', {SERVE!r}]\n"
        "process = Process('child', lambda url: command, logs=pathlib.Path(sys.argv[1]), "
        "spawner=ThreadPoolExecutor(1))\n"
        "process.start(); process.await_ready(30); print(process.pid, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", supervisor, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        child = psutil.Process(int(running.stdout.readline()))
        running.send_signal(signal.SIGKILL)
        psutil.wait_procs([child], timeout=DEADLINE_S)
        assert not child.is_running()
