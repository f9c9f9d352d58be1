"""The thread that turns the ring: sends steps, reads results, chooses tokens, and goes on without the lost.

One thread, one queue of events, no locks. Whatever happens to workers, a request keeps its tokens; the next
pipeline replays it, and since bits do not depend on where they are computed, its text goes on as if nothing
had been. *Covered*: workers that die, freeze, become slow, answer nonsense or NaN; a coordinator that is
away; clients that vanish; no pipeline, or an error of our own that comes back (requests end with a sentence).
*Not covered*: the primary's own death: its clients see their connections end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import torch

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.errors import DialFailed, NoPipeline
from sharedllm.nodes.operations import metrics
from sharedllm.nodes.primary.batching import Batcher
from sharedllm.nodes.primary.federated.reading import read
from sharedllm.nodes.primary.federated.wardrobe import Wardrobe
from sharedllm.nodes.primary.pace import Pace
from sharedllm.nodes.primary.results import Model, Sent, Step, checked, framed
from sharedllm.nodes.primary.ring import Connect, Down, Ring, Route
from sharedllm.nodes.primary.routes import Routes
from sharedllm.nodes.primary.sequence import Sequence
from sharedllm.nodes.primary.watch import Watch
from sharedllm.wire import BadFrame, Frame, LinkClosed

__all__ = ["Loop"]

_RETRY_S = 0.5
_GIVE_UP_S = 30.0
_log = logging.getLogger(__name__)


class Loop(threading.Thread):
    """Runs until ``stop``. All other public methods may be called from any thread."""

    def __init__(self, model: Model, routes: Routes, connect: Connect) -> None:
        super().__init__(name="ring", daemon=True)
        self.model, self.routes, self._connect = model, routes, connect
        self.batcher, self.pace = Batcher(), Pace(0)
        self.ring: Ring | None = None
        self.sentence = "The pipeline is being opened for the first time."
        self.failovers = self.tokens = 0
        self.news: deque[str] = deque(maxlen=20)
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._in_flight: dict[int, Sent] = {}
        self._step = self._epoch = 0
        self._without_since_s, self._next_try_s = time.monotonic(), 0.0
        self._roundings: dict[int, str] = {}
        self._watch, self._wardrobe = Watch(), Wardrobe()
        self._opening: Ring | None = None
        self._arriving: set[Sequence] = set()
        self._lost_s, self._stumbled, self._stopping = 0.0, -1, False

    @property
    def requests(self) -> int:
        """How many requests there are: on their way to the loop, waiting, or active."""
        return len({s.number for s in [*self._arriving, *self.batcher.waiting, *self.batcher.active]})

    @property
    def hopeful(self) -> bool:
        """Whether a pipeline is being opened, and has not been for too long."""
        return time.monotonic() - self._without_since_s < _GIVE_UP_S

    def submit(self, *sequences: Sequence) -> None:
        """Take a request, or all members of a mixture that are computed here."""

        def run() -> None:
            for sequence in sequences:
                self.batcher.take(sequence)
            self._arriving.difference_update(sequences)

        self._arriving.update(sequences)
        self._events.put(run)
        if self._stopping:
            self._fail_all(NoPipeline(self.sentence))

    def cancel(self, sequence: Sequence) -> None:
        """End a request; its memory is freed with the next step."""
        self.feed([sequence], None)
        sequence.telling.cancel()

    def feed(self, sequences: Iterable[Sequence], token: int | None) -> None:
        """Go on with the token that a mixture has chosen for these members, or end them (None)."""

        def run() -> None:
            for sequence in sequences:
                if token is None:
                    self.batcher.end(sequence)
                else:
                    sequence.tokens.append(token)

        self._events.put(run)

    def consider(self, route: Route) -> None:
        """Move to ``route``, where requests are replayed; of the present one only the spares are taken."""

        def run() -> None:
            if self.ring is not None and route.spans == self.ring.route.spans:
                self.ring.route = dataclasses.replace(self.ring.route, spares=route.spares)
            elif self.ring is not None:
                self._leave("moving to a better one")
                self.routes.spare = route

        self._events.put(run)

    def banish(self, nodes: set[str]) -> None:
        """Leave workers that were revoked; tokens no longer pass through them."""

        def run() -> None:
            ring = self.ring
            gone = [] if ring is None else [m for m in ring.route.members if m.node in nodes]
            if ring is not None and gone:
                self._lost(Down(ring, gone[0].node, "leaving", f"{gone[0].name} was revoked."))

        self._events.put(run)

    def stop(self, sentence: str) -> None:
        """End every request with a sentence, close the pipeline, and return when the thread is done."""

        def run() -> None:
            self._stopping, self.sentence = True, sentence
            self._fail_all(NoPipeline(sentence))

        self._events.put(run)
        if (opening := self._opening) is not None:
            opening.close()  # a worker may take minutes to load its layers
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """The loop itself."""
        while not self._stopping:
            try:
                self._turn()
            except Exception:
                _log.exception("The ring's loop failed; the pipeline is opened anew")
                self._leave("an error in this primary")
                self._next_try_s = time.monotonic() + _RETRY_S
                if self._stumbled == self.tokens:  # not one token since: it would be so for ever
                    self._fail_all(NoPipeline("This primary fails again and again; its log says more."))
                self._stumbled = self.tokens
        if self.ring is not None:
            self.ring.close()
        self._fail_all(NoPipeline(self.sentence))
        self.routes.close()

    def _turn(self) -> None:
        if self.ring is None and time.monotonic() >= self._next_try_s:
            self._establish()
        if self.ring is not None:
            self._fill(self.ring)
        try:
            event = self._events.get(timeout=self._watch.wait_s(self._in_flight) if self.ring else 0.05)
        except queue.Empty:
            event = None
        if isinstance(event, Down):
            self._lost(event)
        elif isinstance(event, tuple):
            self._result(*event)
        elif event is not None:
            event()
        if self.ring is not None:
            self._look(self.ring)

    def _look(self, ring: Ring) -> None:
        """See whether anyone is silent or late, or, while nothing is to do, whether a better way exists."""
        oldest = next(iter(self._in_flight.values()), None)
        age_s = time.monotonic() - oldest.sent_s if oldest else 0.0
        bulk = max((sent.step.bulk_rows for sent in self._in_flight.values()), default=0)
        down = self._watch.look(ring, age_s, self.pace.deadline_s(bulk, len(self._in_flight)))
        if down is not None:
            self._lost(down)
        else:
            idle = not (self.batcher.active or self.batcher.waiting)
            self._watch.tend(ring, self.pace, self.routes, self.consider, idle, self.tokens)

    def _fill(self, ring: Ring) -> None:
        """Send steps until every worker may be busy, or there is nothing to send."""
        self._wardrobe.lend(ring, self.batcher)
        while len(self._in_flight) < len(ring.route.members):
            step = self.batcher.step(len(ring.route.members))
            if step is None:
                break
            began_s = time.perf_counter()
            self._step += 1
            frame = framed(self.model, step, self._epoch, self._step)
            self._wardrobe.sent(self._step)
            self._in_flight[self._step] = Sent(step, time.monotonic(), time.perf_counter() - began_s)
            try:
                for sequence in step.begun:
                    if sequence.slot is not None and sequence.ask.request_id:
                        ring.note(sequence.slot, sequence.ask.request_id, len(sequence.tokens))
                ring.send(frame)
            except LinkClosed as error:
                self._lost(Down(ring, ring.route.members[0].node, "dead", str(error)))
                return
        if not self._in_flight:
            self._wardrobe.returned(ring, self._step)

    def _result(self, ring: Ring, frame: Frame, arrived_s: float) -> None:
        """Take hidden states that came back; anything wrong with them is the last worker's fault."""
        if ring is not self.ring:
            return
        began_s = time.perf_counter()
        try:
            sent = self._in_flight.pop(frame.step, None)
            meta, h_RD, traces = checked(frame, sent, self.model.ends.config)
        except BadFrame as error:
            self._lost(Down(ring, ring.route.members[-1].node, "garbage", str(error)))
            return
        assert sent is not None
        self._tell(sent.step, h_RD, traces)
        self._wardrobe.returned(ring, frame.step)
        if self._lost_s and sent.step.readers:
            metrics.failover_seconds.observe(time.monotonic() - self._lost_s)
            self._lost_s = 0.0
        here_s = time.perf_counter() - began_s + sent.here_s
        total_s = arrived_s - sent.sent_s + here_s
        self.pace.took(meta.hops, len(sent.step.tokens), sent.step.bulk_rows, total_s, here_s)
        metrics.step_seconds.observe(total_s)
        self._watch.saw(ring, self.pace, self.routes, self.consider)

    def _tell(self, step: Step, h_RD: torch.Tensor, traces: torch.Tensor) -> None:
        self.tokens += read(self.model.ends, step, h_RD, traces, self.batcher.end)

    def _lost(self, down: Down) -> None:
        """A worker is lost: leave the pipeline, tell the coordinator, and take the spare that lies ready."""
        if down.ring is not self.ring:
            return
        route = down.ring.route
        name = next((m.name for m in route.members if m.node == down.node), down.node[:8])
        _log.warning("lost %s (%s): %s", name, down.kind, down.sentence)
        self.failovers += 1
        self._lost_s = time.monotonic() if self.batcher.active else 0.0
        metrics.failovers.labels(down.kind).inc()
        for stream in {s.stream for s in self.batcher.active if s.stream is not None}:
            stream.failovers += 1
        self.routes.lost(route, down.node, down.kind, down.sentence)
        self._leave(f"{name} was lost ({down.kind})")

    def _leave(self, why: str) -> None:
        """Close the present pipeline; nothing that was in flight counts."""
        if self.ring is not None:
            self.ring.close()
            self._without_since_s = time.monotonic()
        self.ring, self._in_flight, self._next_try_s = None, {}, 0.0
        self.sentence = f"A new pipeline is being opened: {why}."
        self.news.append(why)

    def _establish(self) -> None:
        """Try once to open a pipeline: the spare if there is one, else what the coordinator plans."""
        try:
            self._open(self.routes.choose())
        except SharedLLMError as error:
            if isinstance(error, DialFailed) and len(error.args) > 1:
                self.routes.ban(error.args[1])
            self.sentence = str(error.args[0])
            self._next_try_s = time.monotonic() + _RETRY_S
            if not self.hopeful:
                self._fail_all(NoPipeline(self.sentence))

    def _open(self, route: Route) -> None:
        """Open a route under a new epoch. Roundings stay as they are while any request lives by them."""
        self._epoch = max(self._epoch + 1, route.epoch)
        if not (self._roundings and (self.batcher.active or self.batcher.waiting)):
            borders = {0, *(member.stop for member in route.members)}
            self._roundings = {layer: self.model.wire.name.lower() for layer in sorted(borders)}
        self._opening = ring = Ring(dataclasses.replace(route, epoch=self._epoch), self._events)
        ring.open(self._connect, self.model.name, self.model.hash, self._roundings)
        self.pace, self._watch = Pace(len(route.members)), Watch()
        self.ring, self._opening = ring, None
        self.routes.registered = route.pipeline
        self.batcher.opened(ring.capacity)
        self._wardrobe.opened()
        self.sentence = "The pipeline is open."
        where = ", ".join(f"{m.name} layers {m.start}–{m.stop - 1}" for m in route.members)
        self.news.append(f"pipeline {self._epoch}: {where}")
        _log.info("pipeline %d is open: %s", self._epoch, where)

    def _fail_all(self, error: SharedLLMError) -> None:
        """End every request with a sentence, also those on their way to the loop."""
        with contextlib.suppress(queue.Empty):
            while True:
                if callable(event := self._events.get_nowait()):
                    event()
        for sequence in [*self.batcher.active, *self.batcher.waiting]:
            sequence.fail(error)
        self.batcher = Batcher()
