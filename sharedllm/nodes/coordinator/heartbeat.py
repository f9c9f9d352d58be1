"""A thread that keeps a node's lease and certificate alive, whatever happens in between.

*Covered*: a coordinator that is away for hours (the thread goes on trying), a report that raises, a
certificate that runs out while the machine sleeps, many nodes that start together (the beats are jittered).
*Not covered*: stopping what a revoked node serves; ``on_refused`` is told.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.coordinator.client import CoordinatorClient
from sharedllm.nodes.errors import CoordinatorAway, NotAdmitted

__all__ = ["Heartbeat"]

_LEASE_S = 9.0
_SHORTEST_BEAT_S = 0.05
_RENEW_AGAIN_S = 60.0

_log = logging.getLogger(__name__)


class Heartbeat:
    """Reports every third of a lease until it is stopped.

    ``report`` makes the body of a heartbeat; ``on_reply`` is given each answer; ``on_refused`` the sentence
    when the coordinator does not admit this node any more. All are called in this thread, and what they raise
    is logged. ``last_ok`` is the monotonic time of the last answer, None before the first.
    """

    def __init__(
        self,
        client: CoordinatorClient,
        report: Callable[[], Mapping[str, Any]],
        on_reply: Callable[[dict[str, Any]], object],
        on_refused: Callable[[str], object] = lambda sentence: None,
    ) -> None:
        self._client, self._report = client, report
        self._on_reply, self._on_refused = on_reply, on_refused
        self.lease_s, self.last_ok, self.problem = _LEASE_S, None, ""
        self._answered, self._wake = threading.Event(), threading.Event()
        self._stopping = False
        self._renewed_s = -_RENEW_AGAIN_S
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    last_ok: float | None

    def start(self) -> None:
        """Begin; the first beat is sent at once."""
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the first answer; whether it came."""
        return self._answered.wait(timeout_s)

    def beat_now(self) -> None:
        """Report at once, because something changed."""
        self._wake.set()

    def stop(self, *, leave: bool = True) -> None:
        """End the thread, and with ``leave`` the lease, as well as the coordinator can be told."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        if leave and self.last_ok is not None:
            try:
                self._client.leave(deadline_s=1.0)
            except SharedLLMError as error:
                _log.info("left without telling the coordinator: %s", error)

    @property
    def up(self) -> bool:
        """Whether the coordinator answered within the last lease."""
        return self.last_ok is not None and time.monotonic() - self.last_ok < self.lease_s

    def _run(self) -> None:
        while not self._stopping:
            began_s = time.monotonic()
            try:
                self._renew_in_time()
                self._beat()
            except Exception:
                _log.exception("a heartbeat failed unforeseen; the next one is sent in time")
            beat_s = self.lease_s / 3 * random.uniform(0.8, 1.0)
            self._wake.wait(max(_SHORTEST_BEAT_S, beat_s - (time.monotonic() - began_s)))
            self._wake.clear()

    def _beat(self) -> None:
        try:
            reply = self._client.heartbeat(self._report(), deadline_s=self.lease_s / 3)
        except NotAdmitted as error:
            self._tell(str(error))
            self._on_refused(str(error))
            return
        except SharedLLMError as error:
            self._tell(str(error))
            return
        self.lease_s = max(float(reply["lease_s"]), 3 * _SHORTEST_BEAT_S)
        self.last_ok = time.monotonic()
        self._tell("")
        self._answered.set()
        self._on_reply(reply)

    def _renew_in_time(self) -> None:
        """At two thirds of the certificate's life, and again each minute until it succeeds."""
        due = self._client.identity.peer.renew_in_s(time.time()) == 0
        if due and time.monotonic() - self._renewed_s >= _RENEW_AGAIN_S:
            self._renewed_s = time.monotonic()
            try:
                self._client.renew(deadline_s=self.lease_s)
                _log.info("this node's certificate was renewed")
            except (CoordinatorAway, NotAdmitted) as error:
                _log.warning("this node's certificate could not be renewed yet: %s", error)

    def _tell(self, problem: str) -> None:
        """Log a problem once, not at every beat, and its end."""
        if problem != self.problem:
            self.problem = problem
            if problem:
                _log.warning("%s", problem)
            else:
                _log.info("the coordinator answers again")
