"""Watching one child: its events, its time, its memory, its log; and ending it with all its descendants.

*Covered*: a cell that never returns, ignores SIGTERM or starts processes in sessions of their own; a parent
that is killed. *Not covered*: a process that detaches itself twice and outlives its kernel before it was ever
seen.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil  # type: ignore[import-untyped,unused-ignore]

__all__ = ["Limits", "Watched", "watch"]

OnEvent = Callable[[Mapping[str, Any]], None]

_POLL_S = 0.2
_GRACE_S = 10.0  # for writing the notebook
_MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one run may use."""

    wall_s: float
    memory_bytes: int | None
    output_bytes: int


@dataclass
class Watched:
    """How a child ended: ``finished``, or one of the ways in which it did not."""

    how: str = "failed"
    error: str = ""
    tail: list[str] = field(default_factory=list)
    cell: int = 0
    cells: int = 0
    wall_s: float = 0.0
    peak_rss_bytes: int = 0
    cells_s: list[float] = field(default_factory=list)


def watch(
    job: Mapping[str, Any], folder: Path, env: Mapping[str, str], limits: Limits, on_event: OnEvent
) -> Watched:
    """Run ``sharedllm.bets.runner.child`` on ``job`` in ``folder`` until it ends or a limit ends it."""
    seen, started_s = Watched(), time.monotonic()
    with (folder / "run.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "sharedllm.bets.runner.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            env=dict(env),
            start_new_session=True,
        )
    family: dict[int, psutil.Process] = {}
    try:
        _send(child, job)
        _follow(child, seen, family, limits, started_s, folder / "run.log", on_event)
    except KeyboardInterrupt:
        seen.how = "stopped"
    finally:
        _end(child, family)
        seen.wall_s = time.monotonic() - started_s
        if (folder / "run.log").stat().st_size > limits.output_bytes:
            os.truncate(folder / "run.log", limits.output_bytes)
    return seen


def _send(child: subprocess.Popen[bytes], job: Mapping[str, Any]) -> None:
    """Hand over the job; stdin stays open, as the child's life line."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once; its log says why
        child.stdin.write(json.dumps(job).encode() + b"\n")
        child.stdin.flush()


def _follow(
    child: subprocess.Popen[bytes],
    seen: Watched,
    family: dict[int, psutil.Process],
    limits: Limits,
    started_s: float,
    log: Path,
    on_event: OnEvent,
) -> None:
    assert child.stdout is not None
    lines = _Lines(child.stdout)
    while True:
        for line in lines.ready(_POLL_S):
            event = json.loads(line)
            elapsed_s = time.monotonic() - started_s
            _note(seen, event)
            on_event({**event, "elapsed_s": elapsed_s, "remaining_s": limits.wall_s - elapsed_s})
        if lines.ended:
            return
        rss_bytes = _look(child.pid, family)
        seen.peak_rss_bytes = max(seen.peak_rss_bytes, rss_bytes)
        if time.monotonic() - started_s > limits.wall_s:
            seen.how = "time_limit"
        elif limits.memory_bytes is not None and rss_bytes > limits.memory_bytes:
            seen.how = "memory_limit"
        elif log.stat().st_size > limits.output_bytes or len(lines.rest) > _MAX_LINE_BYTES:
            seen.how = "output_limit"
        if seen.how.endswith("_limit"):
            return


def _note(seen: Watched, event: Mapping[str, Any]) -> None:
    match event["event"]:
        case "cell":
            seen.cell, seen.cells = event["cell"], event["of"]
        case "cell_done":
            seen.cells_s.append(round(event["wall_s"], 3))
        case "progress":
            pass
        case how:
            seen.how = how
            seen.error = event.get("error", "")
            seen.tail = event.get("tail", [])
            seen.peak_rss_bytes = max(seen.peak_rss_bytes, event.get("peak_rss_bytes", 0))


class _Lines:
    """Complete lines of a pipe, as they arrive."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.handle, self.rest, self.ended = pipe.fileno(), b"", False
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.handle, selectors.EVENT_READ)

    def ready(self, timeout_s: float) -> list[bytes]:
        if not self.selector.select(timeout_s):
            return []
        data = os.read(self.handle, 1 << 16)
        if not data:
            self.ended = True
            self.selector.close()
        *lines, self.rest = (self.rest + data).split(b"\n")
        return lines


def _look(pid: int, family: dict[int, psutil.Process]) -> int:
    """Remember every descendant, and return the resident bytes of all that live."""
    total = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        family.update({process.pid: process for process in [parent, *parent.children(recursive=True)]})
    for process in family.values():
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def _end(child: subprocess.Popen[bytes], family: dict[int, psutil.Process]) -> None:
    """Ask the group to end, then kill the group and every descendant that was ever seen."""
    _look(child.pid, family)
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            _look(child.pid, family)
            _signal_group(child.pid, signal.SIGKILL)
    for process in family.values():
        with contextlib.suppress(psutil.Error):
            process.kill()  # psutil knows a reused pid from the process it saw
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
