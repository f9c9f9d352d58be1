"""Where routes come from: the coordinator, or the spares it sent along, which need nobody.

*Covered*: a coordinator that is away (spares still work, and the sentence says so), asking in the background.
*Not covered*: planning here; a primary that never reached its coordinator has no route.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.errors import CoordinatorAway
from sharedllm.nodes.primary.ring import Member, Route

__all__ = ["Coordinator", "Routes", "route_from"]

_ASK_S = 2.0
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

    ``registered`` is the pipeline that the coordinator keeps for this primary; each answer replaces it.
    """

    def __init__(self, coordinator: Coordinator, wish: Mapping[str, Any]) -> None:
        self._coordinator, self._wish = coordinator, dict(wish)
        self.away = False
        self.registered: str | None = None

    def ask(self, banned: set[str]) -> Route:
        """A route now. Raises ``NoPipeline`` (a sentence for people) and ``CoordinatorAway``."""
        request = {**self._wish, "banned": sorted(banned), "replaces": self.registered}
        try:
            reply = self._coordinator.open_pipeline(request, deadline_s=_ASK_S)
        except CoordinatorAway:
            self.away = True
            raise
        self.away, self.registered = False, reply["pipeline"]
        return route_from(reply)

    def ask_later(self, then: Callable[[Route], None]) -> None:
        """As ``ask``, in the background; if there is no answer, nothing happens."""
        self._later(lambda: then(self.ask(set())))

    def report(self, report: dict[str, Any], then: Callable[[Route], None] | None = None) -> None:
        """Tell the coordinator how the pipeline does, in the background, and ask for a route after that."""

        def run() -> None:
            if self.registered is not None:
                self._coordinator.report(self.registered, report)
            if then is not None:
                then(self.ask(set()))

        self._later(run)

    def close(self) -> None:
        """Give the pipeline up, if the coordinator is there to hear it."""
        if self.registered is not None:
            with contextlib.suppress(SharedLLMError):
                self._coordinator.close_pipeline(self.registered)

    def _later(self, what: Callable[[], None]) -> None:
        def run() -> None:
            try:
                what()
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
