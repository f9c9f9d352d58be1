"""Where routes come from: the coordinator, or the spares it sent along, which need nobody.

*Covered*: a coordinator that is away (spares still work, and the sentence says so), asking in the background.
*Not covered*: planning here; a primary that never reached its coordinator has no route.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.errors import CoordinatorAway
from sharedllm.nodes.primary.ring import Member, Placed, Route

__all__ = ["Coordinator", "Routes", "Then", "route_from"]

Then = Callable[[Route], None]

_ASK_S = 2.0
_BAN_S = 9.0
_log = logging.getLogger(__name__)


class Coordinator(Protocol):
    """What is asked of a coordinator; ``nodes.coordinator.CoordinatorClient`` does it over HTTPS."""

    def open_pipeline(self, request: Mapping[str, Any], *, deadline_s: float = ...) -> dict[str, Any]:
        """Plan and reserve. Raises ``NoPipeline`` and ``CoordinatorAway``."""
        ...

    def report(self, pipeline: str, report: Mapping[str, Any], *, deadline_s: float = ...) -> None:
        """Say how a pipeline did. Raises ``CoordinatorAway``."""
        ...

    def close_pipeline(self, pipeline: str, *, deadline_s: float = ...) -> None:
        """Give a pipeline up. Raises ``CoordinatorAway``."""
        ...


class Routes:
    """Asks for routes for one model; ``wish`` is the model's and the objective's part of each request.

    ``registered`` is the pipeline that the coordinator keeps for this primary: the last answer, or a spare
    that is in use. ``spare`` is what ``choose`` takes first.
    """

    def __init__(self, coordinator: Coordinator, wish: Mapping[str, Any]) -> None:
        self._coordinator, self._wish = coordinator, dict(wish)
        self.away = False
        self.registered: str | None = None
        self.spare: Route | None = None
        self._dead: dict[str, float] = {}

    def ban(self, node: str) -> None:
        """Leave a worker out for as long as a lease."""
        self._dead[node] = time.monotonic() + _BAN_S

    def lost(self, route: Route, node: str, kind: str, detail: str) -> None:
        """Do without a worker of ``route``: its spare is the next to be chosen, and the coordinator hears."""
        self.ban(node)
        self.spare = route.spares.get(node)
        if kind != "leaving":
            self.report({"worker": node, "kind": kind, "detail": detail[:400]})

    def choose(self) -> Route:
        """The spare, if there is one without banned workers, else what the coordinator plans now.

        Raises what ``ask`` raises.
        """
        now_s = time.monotonic()
        self._dead = {node: until_s for node, until_s in self._dead.items() if until_s > now_s}
        route, self.spare = self.spare, None
        if route is None or any(member.node in self._dead for member in route.members):
            return self.ask(set(self._dead))
        return route

    def ask(self, banned: set[str]) -> Route:
        """A route now. Raises ``NoPipeline`` (a sentence for people) and ``CoordinatorAway``."""
        try:
            reply = self._coordinator.open_pipeline(self._request(banned), deadline_s=_ASK_S)
        except CoordinatorAway:
            self.away = True
            raise
        self.away, self.registered = False, reply["pipeline"]
        return route_from(reply)

    def improve(
        self,
        present: list[Placed],
        better: Callable[[list[Placed], float], bool],
        then: Then,
        *,
        spared: Collection[str],
        refresh: bool = False,
    ) -> None:
        """See in the background what would be planned now, and hand ``then`` that route if it is ``better``.

        Also if it is the same, for the sake of its spares: with ``refresh``, which renews their tickets, and
        where the loss of a worker that is not ``spared`` now could be borne.
        """

        def run() -> None:
            dry = self._coordinator.open_pipeline({**self._request(set()), "dry": True}, deadline_s=_ASK_S)
            spans = [(node, start, stop) for node, start, stop in dry["spans"]]
            same = spans == present
            more = not set(dry["spared"]) <= set(spared)
            if (same and (refresh or more)) or (not same and better(spans, dry["token_s"])):
                then(self.ask(set()))

        self._later(run)

    def report(self, report: dict[str, Any]) -> None:
        """Tell the coordinator how the pipeline does, in the background."""
        pipeline = self.registered
        if pipeline is not None:
            self._later(lambda: self._coordinator.report(pipeline, report))

    def close(self) -> None:
        """Give the pipeline up, if the coordinator is there to hear it."""
        if self.registered is not None:
            with contextlib.suppress(SharedLLMError):
                self._coordinator.close_pipeline(self.registered)

    def _request(self, banned: set[str]) -> dict[str, Any]:
        return {**self._wish, "banned": sorted(banned), "replaces": self.registered}

    def _later(self, what: Callable[[], None]) -> None:
        def run() -> None:
            try:
                what()
                self.away = False
            except CoordinatorAway:
                self.away = True
            except SharedLLMError as error:
                _log.info("the coordinator said: %s", error)

        threading.Thread(target=run, name="to the coordinator", daemon=True).start()


def route_from(reply: Mapping[str, Any]) -> Route:
    """Read a ``PipelineReply``."""
    members = tuple(
        Member(
            worker["node"],
            worker["name"],
            worker["start"],
            worker["stop"],
            tuple(worker["endpoints"]),
            worker["ticket"],
            worker["next_ticket"],
            worker.get("host", ""),
        )
        for worker in reply["workers"]
    )
    spares = {node: route_from(spare) for node, spare in reply.get("spares", {}).items() if spare}
    return Route(
        reply["pipeline"],
        reply["epoch"],
        members,
        reply["token_s"],
        reply["floor_s"],
        tuple((name, sentence) for name, sentence in reply.get("left_out", [])),
        spares,
    )
