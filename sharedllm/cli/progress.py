"""Bars on stderr for long work, with rate and remaining time; stdout stays clean for what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
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


@contextmanager
def showing() -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield a ``store.Progress`` that draws a bar for each thing being done; silent without a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:

        def report(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=total)

        yield report


@contextmanager
def learning() -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield a ``store.Progress`` that draws one bar for work counted in tokens; silent without a terminal.

    What is being done, with its rate, may change from call to call.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(compact=True))
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("reading")

        def report(what: str, done: int, total: int | None) -> None:
            bars.update(task, description=what, completed=done, total=total)

        yield report
