"""One open pipeline: a connection to every worker, steps out to the first, results back from the last.

A thread per worker reads its connection and turns what comes into events for the loop, so the loop waits in
one place. Whatever goes wrong names the worker at fault.

*Covered*: a worker that hangs up, faults, or answers nonsense; opening all workers side by side, in bounded
time. *Not covered*: what to do then (``loop``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from sharedllm.engines import Lending, greet, lent
from sharedllm.errors import SharedLLMError
from sharedllm.nodes.errors import DialFailed
from sharedllm.nodes.primary.sequence import CHUNK
from sharedllm.wire import Fault, Frame, Kind, Limits, Link, LinkClosed, Note, Open, Opened, Pong

__all__ = ["Connect", "Down", "Member", "Placed", "Ring", "Route"]

Placed = tuple[str, int, int]
"""A node and the layers [start, stop) that it computes."""

Connect = Callable[["Member"], socket.socket]
"""Reach a worker and be admitted there."""

_OPEN_S = 120.0  # loading a span, and fetching it the first time, may take this long
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Member:
    """One worker of a route, as the coordinator described it."""

    node: str
    name: str
    start: int
    stop: int
    endpoints: tuple[Mapping[str, Any], ...] = ()
    ticket: str = ""
    next_ticket: str | None = None
    host: str = ""


@dataclasses.dataclass(frozen=True)
class Route:
    """A planned pipeline. ``spares``: what to use instead if that worker is lost, ready-made."""

    pipeline: str
    epoch: int
    members: tuple[Member, ...]
    token_s: float = 0.0
    floor_s: float = 0.0
    left_out: tuple[tuple[str, str], ...] = ()
    spares: Mapping[str, Route] = dataclasses.field(default_factory=dict)

    @property
    def spans(self) -> list[Placed]:
        """Who computes which layers."""
        return [(member.node, member.start, member.stop) for member in self.members]


@dataclasses.dataclass(frozen=True)
class Down:
    """A worker was lost, or another found fault with it; ``kind``: dead, frozen, garbage, leaving."""

    ring: Ring
    node: str
    kind: str
    sentence: str


class Ring:
    """A route, opened. Events (``Down``, or ``(ring, frame)`` of a result) go to ``events``."""

    def __init__(self, route: Route, events: queue.SimpleQueue[Any]) -> None:
        self.route, self._events = route, events
        self.epoch = route.epoch
        self.opened: dict[str, Opened] = {}
        self.rtt_s: dict[str, float] = {}
        self.paths: dict[str, str] = {}
        self.pongs: dict[str, tuple[float, Pong]] = {}
        self._links: dict[str, Link] = {}
        self.lending = Lending()
        self._pinged_s = 0.0
        self.closed = False

    def open(self, connect: Connect, name: str, model: str, roundings: Mapping[int, str]) -> None:
        """Connect to all workers at once and have them take their spans.

        Raises ``DialFailed``, whose ``args[1]`` is the node that failed; then everything is closed again.
        """
        failures: dict[str, SharedLLMError] = {}
        threads = [
            threading.Thread(target=self._open_one, args=(member, connect, name, model, roundings, failures))
            for member in self.route.members
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            self.close()
            node, error = next(iter(failures.items()))
            raise DialFailed(f"{self._named(node)} can't take its layers: {error}", node)
        for member in self.route.members:
            threading.Thread(
                target=self._read, args=(member,), name=f"from {member.name}", daemon=True
            ).start()

    @property
    def capacity(self) -> int:
        """Positions that the smallest worker holds."""
        return min(opened.kv_tokens for opened in self.opened.values())

    @property
    def adapters(self) -> int:
        """How many adapters may be lent at a time."""
        return min(opened.adapters for opened in self.opened.values())

    @property
    def steady(self) -> bool:
        """Whether every worker's products are (see ``Opened``)."""
        return all(opened.steady for opened in self.opened.values())

    def send(self, frame: Frame) -> None:
        """Send a step to the first worker. Raises ``LinkClosed``."""
        self._links[self.route.members[0].node].post(frame)

    def note(self, slot: int, request_id: str, tokens: int) -> None:
        """Let every node's log say whose ``tokens`` a slot holds. Raises ``LinkClosed``."""
        extra = {"request_id": request_id[:64], "pipeline": self.route.pipeline, "slot": slot}
        _log.info("%d tokens to compute", tokens, extra=extra)
        self.send(Frame(Kind.NOTE, self.epoch, meta=Note(slot, request_id[:64]).to_bytes()))

    def lend(self, number: int, delta: Mapping[str, Tensor] | None, then: Callable[[], object]) -> None:
        """Send every worker its layers' part of a norm adapter (None: let it forget that number).

        When all have it, the loop is to run ``then``, unless the pipeline is over; a worker that can't take
        it is ``Down``. Raises ``BadAdapter`` for gains that do not fit.
        """
        members = self.route.members
        frames = [lent(number, delta, m.start, m.stop, self.opened[m.node].width) for m in members]
        serial = self.lending.begin(number, [m.node for m in members], lambda: self.closed or then())
        for member, frame in zip(members, frames, strict=True):
            try:
                self._links[member.node].post(dataclasses.replace(frame, epoch=self.epoch, step=serial))
            except LinkClosed as error:
                self._events.put(Down(self, member.node, "dead", str(error)))

    def ping(self) -> None:
        """Ask every worker whether it lives; answers appear in ``pongs`` and ``rtt_s``."""
        self._pinged_s = time.monotonic()
        self.pongs.clear()
        for link in list(self._links.values()):
            with contextlib.suppress(LinkClosed):
                link.post(Frame(Kind.PING, self.epoch))

    def silent(self) -> list[Member]:
        """The workers that did not answer the last ``ping``."""
        return [member for member in self.route.members if member.node not in self.pongs]

    def hop_rtt_s(self) -> list[float]:
        """Each worker's least round trip: the network's as the kernel knows it, else that of a ping."""
        found = []
        for node, link in list(self._links.items()):
            network_s = link.network_rtt_s if self.paths.get(node) != "relay" else None
            known = network_s if network_s else self.rtt_s.get(node)
            found += [known] if known else []
        return found

    def close(self) -> None:
        """End the pipeline; its workers forget their caches."""
        self.closed = True
        for link in list(self._links.values()):
            with contextlib.suppress(LinkClosed):
                link.post(Frame(Kind.CLOSE, self.epoch))
            link.close()

    def _open_one(
        self,
        member: Member,
        connect: Connect,
        name: str,
        model: str,
        roundings: Mapping[int, str],
        failures: dict[str, SharedLLMError],
    ) -> None:
        try:
            sock = connect(member)
            link = Link(sock, member.name, Limits())
            self._links[member.node] = link
            self.paths[member.node] = _path(sock, member)
            if self.closed:
                raise DialFailed("the pipeline is no longer wanted.")
            greet(link)
            following = self._after(member)
            request = Open(
                self.route.pipeline,
                name,
                model,
                member.start,
                member.stop,
                following,
                {str(layer): codec for layer, codec in roundings.items()},
            )
            link.post(Frame(Kind.OPEN, self.epoch, meta=request.to_bytes()))
            reply = link.receive(_OPEN_S)
            if reply.kind is Kind.FAULT:
                raise DialFailed(Fault.from_bytes(reply.meta).sentence)
            if reply.kind is not Kind.OPENED or reply.epoch != self.epoch:
                raise DialFailed(f"it answered a request to open with {reply.kind.name}.")
            opened = self.opened[member.node] = Opened.from_bytes(reply.meta)
            if opened.kv_tokens < CHUNK:
                raise DialFailed(f"it has memory for {opened.kv_tokens} tokens only.")
        except (SharedLLMError, TimeoutError, OSError) as error:
            failures[member.node] = error if isinstance(error, SharedLLMError) else DialFailed(str(error))
            self.close()  # the others may wait for this one

    def _after(self, member: Member) -> dict[str, Any] | None:
        """What ``member`` needs to reach the worker behind it; None for the last."""
        position = self.route.members.index(member) + 1
        if position == len(self.route.members):
            return None
        following = self.route.members[position]
        return {
            "node": following.node,
            "endpoints": list(map(dict, following.endpoints)),
            "ticket": member.next_ticket,
        }

    def _read(self, member: Member) -> None:
        link = self._links[member.node]
        try:
            while True:
                self._received(link.receive(None), member)
        except LinkClosed as error:
            if not self.closed:
                self._events.put(Down(self, member.node, "dead", str(error)))
        except SharedLLMError as error:
            self._events.put(Down(self, member.node, "garbage", str(error)))

    def _received(self, frame: Frame, member: Member) -> None:
        if frame.kind is Kind.PONG:
            now_s = time.monotonic()
            self.pongs[member.node] = (now_s, Pong.from_bytes(frame.meta))
            rtt_s = now_s - self._pinged_s
            self.rtt_s[member.node] = min(rtt_s, self.rtt_s.get(member.node, rtt_s))
        elif frame.epoch != self.epoch:
            return  # from before a failover: never taken for new
        elif frame.kind is Kind.FAULT:
            fault = Fault.from_bytes(frame.meta)
            culprit, kind = self._culprit(member, fault.culprit), _KINDS.get(fault.culprit, "dead")
            self._events.put(Down(self, culprit, kind, fault.sentence))
        elif frame.kind is Kind.CLOSE:
            self._events.put(Down(self, member.node, "leaving", f"{member.name} asks to be relieved."))
        elif frame.kind is Kind.ADOPTED:
            if (then := self.lending.adopted(member.node, frame)) is not None:
                self._events.put(then)
        elif frame.kind is Kind.RESULT and member is self.route.members[-1]:
            self._events.put((self, frame, time.monotonic()))
        else:
            self._events.put(Down(self, member.node, "garbage", f"{member.name} sent {frame.kind.name}."))

    def _culprit(self, member: Member, where: str) -> str:
        """The node that a fault speaks of; the primary itself is never banned, so the first blames itself."""
        position = self.route.members.index(member)
        shift = {"previous": -1, "lost": -1, "next": 1}.get(where, 0)
        return self.route.members[max(0, min(position + shift, len(self.route.members) - 1))].node

    def _named(self, node: str) -> str:
        return next(member.name for member in self.route.members if member.node == node)


def _path(sock: socket.socket, member: Member) -> str:
    """By which of its addresses a worker was reached; what comes through a relay comes from a socket pair."""
    if sock.family == socket.AF_UNIX:
        return "relay" if member.endpoints else "lan"
    port = sock.getpeername()[1]
    return next((str(e["kind"]) for e in member.endpoints if e["port"] == port), "lan")


_KINDS = {"previous": "garbage"}
