"""Signals that a command answers as it answers Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal do what Ctrl-C does; the handlers from before are put back."""
    ways = (signal.SIGTERM, signal.SIGHUP)
    before: list[Any] = [signal.signal(way, signal.default_int_handler) for way in ways]
    try:
        yield
    finally:
        for way, handler in zip(ways, before, strict=True):
            signal.signal(way, handler)
