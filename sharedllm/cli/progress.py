"""Bars on stderr for long work, or a line now and then where nobody could see one; with rates.

Stdout stays clean for what was asked for.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

__all__ = ["learning", "showing"]

_EVERY_S = 15.0

Report = Callable[[str, int, int | None], None]


@contextmanager
def showing() -> Iterator[Report]:
    """Yield a ``store.Progress`` that draws a bar for each thing being done, counted in bytes."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console, in_bytes=True)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=console) as bars:

        def report(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=total)

        yield report


@contextmanager
def learning() -> Iterator[Report]:
    """Yield a ``store.Progress`` that draws one bar for work counted in tokens.

    What is being done, with its rate, may change from call to call.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console, in_bytes=False)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(compact=True))
    with Bars(*columns, console=console) as bars:
        task = bars.add_task("reading")

        def report(what: str, done: int, total: int | None) -> None:
            bars.update(task, description=what, completed=done, total=total)

        yield report


def _lines(console: Console, in_bytes: bool) -> Report:
    """Say in a line every 15 s how far the work is; what takes less time says nothing."""
    began_s = said_s = time.monotonic()
    begun, last = 0, -1

    def report(what: str, done: int, total: int | None) -> None:
        nonlocal began_s, said_s, begun, last
        now_s = time.monotonic()
        if done < last or last < 0:  # something else has begun
            began_s, begun = now_s, done
        last = done
        if now_s - said_s < _EVERY_S:
            return
        said_s = now_s
        rate = (done - begun) / max(now_s - began_s, 1e-9)
        parts = [what]
        if in_bytes:
            parts += [decimal(done) + (f" of {decimal(total)}" if total else ""), f"{decimal(int(rate))}/s"]
        elif total:
            parts.append(f"{done / total:.0%}")
        if total and rate:
            parts.append(f"{datetime.timedelta(seconds=round((total - done) / rate))} left")
        console.print(", ".join(parts), soft_wrap=True, markup=False, highlight=False)

    return report
