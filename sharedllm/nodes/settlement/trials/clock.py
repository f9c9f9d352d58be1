"""A virtual clock, and links that lose, double, delay and so reorder messages; all from one seed."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Clock", "Conditions", "Link"]


@dataclass(frozen=True)
class Conditions:
    """Probabilities that a message is lost, and that it comes twice; ``latency_s`` is the longest delay."""

    loss: float = 0.0
    doubling: float = 0.0
    latency_s: float = 2.0


class Clock:
    """What happens when: actions in the order of their times."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when_s: float, action: Callable[[], None]) -> None:
        """Have ``action`` done at ``when_s``, or now if that is past."""
        heapq.heappush(self._events, (max(when_s, self.now_s), next(self._order), action))

    def run(self, until_s: float) -> None:
        """Do what is due up to ``until_s``."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self._events)
            action()
        self.now_s = until_s


class Link:
    """Messages at the mercy of ``conditions``; counts what it was given, lost and doubled."""

    def __init__(self, clock: Clock, draw: random.Random, conditions: Conditions) -> None:
        self.messages = self.lost = self.doubled = 0
        self._clock, self._draw, self._conditions = clock, draw, conditions

    def send(self, deliver: Callable[[], None]) -> None:
        """Deliver a message after a while: never, once or twice."""
        self.messages += 1
        copies = 1
        if self._draw.random() < self._conditions.loss:
            self.lost += 1
            copies = 0
        elif self._draw.random() < self._conditions.doubling:
            self.doubled += 1
            copies = 2
        for _ in range(copies):
            self._clock.at(self._clock.now_s + self._draw.uniform(0, self._conditions.latency_s), deliver)
