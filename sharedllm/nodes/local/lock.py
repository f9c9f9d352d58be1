"""One federation per state folder: a lock that ends with its holder, and a note of where that serves."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from sharedllm.errors import WriteFailed
from sharedllm.nodes.identity.files import write_public
from sharedllm.nodes.local.errors import AlreadyUp

__all__ = ["holding", "note", "read_note"]

_MAX_BYTES = 4096


@contextlib.contextmanager
def holding(state: Path) -> Iterator[None]:
    """Hold ``state`` against other federations; raises ``AlreadyUp`` with its addresses if one is up."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(state / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise WriteFailed(
            f"The state folder {state} can't be used ({error.strerror}); give another with --state."
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyUp(_already(state)) from None
        (state / "up.json").unlink(missing_ok=True)
        yield
        (state / "up.json").unlink(missing_ok=True)
    finally:
        os.close(handle)


def note(state: Path, **facts: str | int) -> None:
    """Write where this federation serves, for whoever tries to start it again."""
    write_public(state / "up.json", json.dumps(facts).encode())


def read_note(state: Path) -> dict[str, str | int]:
    """Read what the federation in ``state`` noted; empty if it is not up or still starting."""
    try:
        with (state / "up.json").open("rb") as file:
            facts = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _already(state: Path) -> str:
    facts = read_note(state)
    where = "it is still starting"
    if {"page", "pid"} <= facts.keys():
        where = f"its page is at {facts['page']}, its process is {facts['pid']}"
    return (
        f"SharedLLM is already up from {state}; {where}. Use it, end it with Ctrl-C in its terminal, or give "
        "another folder with --state and other ports with --port and --coordinator-port."
    )
