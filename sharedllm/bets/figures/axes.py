"""Axes with round ticks, linear or logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Axis", "axis"]

TINY = 1e-300  # below it a range has no digits left


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic map from values to pixels, with its ticks."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def at(self, value: float) -> float:
        a, b, v = (math.log10(n) if self.log else n for n in (self.low, self.high, value))
        return self.start + (v - a) / (b - a) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            stride = max(1, math.ceil((last - first + 1) / 7))
            return [10.0**e for e in range(first, last + 1, stride)]
        step = _step(self.high - self.low)
        first_step = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first_step, math.floor(self.high / step + 1e-9) + 1)]


def _step(span: float) -> float:
    """Return the round step (1, 2 or 5 times a power of ten) that cuts ``span`` into about five."""
    raw = span / 5
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))


def axis(values: Sequence[float], start: float, end: float, *, zero: bool = False) -> Axis:
    """Choose a range for ``values``; logarithmic where all are positive and span a factor of 200 or more."""
    low, high = min(values), max(values)
    if not zero and low > TINY and high / low >= 200:
        margin = (high / low) ** 0.03
        return Axis(low / margin, high * margin, start, end, True)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= max(TINY, 1e-9 * max(abs(low), abs(high))):
        pad = max(abs(low), abs(high)) / 2
        low, high = (low - pad, high + pad) if pad > TINY else (-0.5, 0.5)
    step = _step(high - low)
    return Axis(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, start, end, False)
