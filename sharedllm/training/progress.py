"""Progress that people can watch: a live bar on a terminal, about twenty plain lines in a log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from sharedllm.training.loop import OnStep, Step

__all__ = ["line", "live"]

_LINES = 20


def line(step: Step) -> str:
    """Say in one line how far a run is, how fast, how good, and for how much longer."""
    return (
        f"step {step.step + 1}/{step.steps} · loss {step.loss_nats:.3f} nats/token · "
        f"{step.tok_per_s:,.0f} tok/s · {_clock(step.remaining_s)} left"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextlib.contextmanager
def live(console: Console, name: str) -> Iterator[OnStep]:
    """Yield the function to call after each step; draws on ``console`` for as long as the body runs."""
    if not console.is_terminal:

        def log(step: Step) -> None:
            every = max(1, step.steps // _LINES)
            if step.step % every == 0 or step.step + 1 == step.steps:
                console.print(f"{name}: {line(step)}", soft_wrap=True)

        yield log
        return
    with Progress(BarColumn(), TextColumn("{task.description}"), console=console) as bar:
        task = bar.add_task(name)

        def draw(step: Step) -> None:
            bar.update(task, completed=step.step + 1, total=step.steps, description=f"{name}: {line(step)}")

        yield draw
