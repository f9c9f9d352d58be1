"""Loops that are broken on purpose, each by one mistake that a scheduler might make.

A bet that finds no divergence shows nothing unless the same comparison finds these.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import ClassVar

from torch import Tensor

from sharedllm.nodes.primary import Route
from sharedllm.nodes.primary.batching import Step
from sharedllm.nodes.primary.ring import Ring
from sharedllm.nodes.rehearsal.ring import Recording
from sharedllm.wire import Frame

__all__ = ["Forgetful", "Impatient", "Mixing", "Stale", "Swapping"]


class Impatient(Recording):
    """Takes the last hidden states again when a result is later than ``patience_s``: a true race."""

    patience_s: ClassVar[float] = 0.05
    _last: Tensor | None = None

    def _fill(self, ring: Ring) -> None:
        before = set(self._in_flight)
        super()._fill(ring)
        for step in self._in_flight.keys() - before:
            timer = threading.Timer(
                self.patience_s, self._events.put, [lambda s=step: self._overtake(ring, s)]
            )
            timer.daemon = True
            timer.start()

    def _overtake(self, ring: Ring, step: int) -> None:
        if ring is self.ring and step in self._in_flight and self._last is not None:
            sent = self._in_flight.pop(step)
            last_RD = self._last[-1:].expand(len(sent.step.readers), -1)
            self._tell(sent.step, last_RD, last_RD[:0])

    def _result(self, ring: Ring, frame: Frame, arrived_s: float) -> None:
        if ring is not self.ring or frame.step in self._in_flight:
            super()._result(ring, frame, arrived_s)

    def _tell(self, step: Step, h_RD: Tensor, traces: Tensor) -> None:
        self._last = h_RD.clone() if len(h_RD) else self._last
        super()._tell(step, h_RD, traces)


class Mixing(Recording):
    """Gives a result to the readers of the step that was sent last, if it has as many."""

    def _result(self, ring: Ring, frame: Frame, arrived_s: float) -> None:
        own, newest = self._in_flight.get(frame.step), next(reversed(self._in_flight), frame.step)
        other = self._in_flight.get(newest)
        if own is not None and other is not None and len(own.step.readers) == len(other.step.readers):
            mixed = dataclasses.replace(own.step, readers=other.step.readers, behind=other.step.behind)
            back = dataclasses.replace(other.step, readers=own.step.readers, behind=own.step.behind)
            self._in_flight[newest] = dataclasses.replace(other, step=back)
            self._in_flight[frame.step] = dataclasses.replace(own, step=mixed)
        super()._result(ring, frame, arrived_s)


class Stale(Recording):
    """Takes the last hidden states of the epoch before a failover for the first of the new one."""

    _last: Tensor | None = None
    _old: Tensor | None = None

    def _open(self, route: Route) -> None:
        super()._open(route)
        self._old = self._last

    def _tell(self, step: Step, h_RD: Tensor, traces: Tensor) -> None:
        if step.readers and self._old is not None:
            h_RD, self._old = self._old[-1:].expand_as(h_RD), None
        self._last = h_RD.clone() if len(h_RD) else self._last
        super()._tell(step, h_RD, traces)


class Forgetful(Recording):
    """Lets the next pipeline round where *it* is cut, not where the text so far was rounded."""

    def _open(self, route: Route) -> None:
        self._roundings = {}
        super()._open(route)


class Swapping(Recording):
    """Replays the tokens of another prompt (``envelope``) when a request moves."""

    envelope: ClassVar[tuple[int, ...]] = ()

    def _open(self, route: Route) -> None:
        for sequence in self.batcher.active:
            length = min(sequence.prompt_length, len(self.envelope))
            sequence.tokens[:length] = self.envelope[:length]
        super()._open(route)
