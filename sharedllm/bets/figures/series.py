"""What is drawn: a recorded series as curves without gaps in their numbers."""

from __future__ import annotations

from dataclasses import dataclass

from sharedllm.bets.result import Numbers, Series

__all__ = ["Figure", "Mark", "figure"]


@dataclass(frozen=True)
class Mark:
    """One curve: ``y`` over ``x`` (numbers or names), with ``low`` and ``high`` where it has intervals."""

    name: str
    kind: str
    x: tuple[float | str, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Figure:
    """Curves that share title and axes, with the sentence to take away and the text for who cannot see it."""

    title: str
    takeaway: str
    alt: str
    x_label: str
    y_label: str
    marks: tuple[Mark, ...]


def figure(series: Series) -> Figure:
    """Return a recorded series as a figure; a null value leaves its point out."""
    labels = tuple(series.y) if isinstance(series.y, dict) else (series.name,)
    marks = tuple(mark for mark in (_mark(series, label) for label in labels) if mark.x)
    return Figure(series.title, series.takeaway, series.alt, series.x_label, series.y_label, marks)


def _mark(series: Series, label: str) -> Mark:
    def curve(given: Numbers | dict[str, Numbers] | None) -> Numbers | None:
        return given[label] if isinstance(given, dict) else given

    y, low, high = curve(series.y) or [], curve(series.low), curve(series.high)
    columns = [y, low, high] if low is not None and high is not None else [y]
    kept = [i for i in range(len(series.x)) if all(column[i] is not None for column in columns)]
    numbers = [tuple(float(column[i] or 0.0) for i in kept) for column in columns]
    return Mark(label, series.kind, tuple(series.x[i] for i in kept), *numbers)
