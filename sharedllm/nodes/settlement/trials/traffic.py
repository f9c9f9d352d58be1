"""Nodes that give each other bytes for some days over links that lose messages, among them some who cheat.

A message carries the bytes and their claim; it is sent again until it is acknowledged, where the protocol
has acknowledgements, at growing intervals. Nodes sleep once, and restart from their journals. Over-claimers
claim half as much again in every second transfer; silent clients take and never acknowledge.

*Covered*: loss, doubling, reordering, restarts, over-claims, forged acknowledgements, silence. *Not covered*:
what a message costs; links whose losses come together.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sharedllm.nodes.settlement.errors import CreditSpent, StatementRefused
from sharedllm.nodes.settlement.trials.books import Books
from sharedllm.nodes.settlement.trials.clock import Clock, Conditions, Link
from sharedllm.nodes.settlement.trials.parties import party

__all__ = ["Outcome", "Traffic"]

_BURST, _GAP_S = 6, 5.0
_RESEND_S, _RESEND_MOST_S = 15.0, 600.0
_DRAIN_S = 6 * 3600.0
_LOOKS = 48
_MEDIAN_BYTES, _SPREAD = 1e6, 1.0


@dataclass
class Outcome:
    """What the books say at the last hour, ``drained`` when messages had some more hours to get through.

    ``drifts``: per honest server, |credit asked − debt booked| over the debt, with honest clients. ``wrong``:
    bytes by which a settled or taken prefix differs from what was really sent. ``pending``: share of honest
    bytes so far that are not acknowledged, at 48 moments. ``gated``: honest transfers refused for credit.
    ``fraud``: credit beyond what over-claimers sent, over what they sent. ``silent_transfers``: the most that
    one server gave to one silent client. ``forgotten``: transfers that books lacked after a restart.
    """

    transfers: int = 0
    drifts: list[float] = field(default_factory=list)
    drained_drifts: list[float] = field(default_factory=list)
    wrong_bytes: int = 0
    pending: list[float] = field(default_factory=list)
    gated: int = 0
    duplicates: int = 0
    duplicates_counted: int = 0
    overclaims: int = 0
    fraud: float = 0.0
    silent_transfers: int = 0
    restarts: int = 0
    forgotten: int = 0
    messages: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Traffic:
    """``nodes`` that each start ``transfers`` transfers in ``hours``, to ``partners`` unequal clients.

    ``overclaimers`` and ``silent`` are shares of the nodes, ``asleep_s`` how long each node sleeps once.
    """

    nodes: int
    hours: float
    transfers: int
    conditions: Conditions
    partners: int = 4
    overclaimers: float = 0.0
    silent: float = 0.0
    asleep_s: float = 0.0

    def run(self, kind: Callable[..., Books], seed: int) -> Outcome:
        """Let the hours pass for nodes with such books."""
        return _Run(self, kind, seed).outcome()


@dataclass
class _Pair:
    """What really went from a server to a client: bytes by number, and the resending of claims."""

    server: int
    client: int
    totals: list[int] = field(default_factory=lambda: [0])
    sizes: list[int] = field(default_factory=list)
    came: set[int] = field(default_factory=set)
    timer: bool = False
    pause_s: float = _RESEND_S
    oldest: Any = None


class _Run:
    def __init__(self, traffic: Traffic, kind: Callable[..., Books], seed: int) -> None:
        self._traffic, self._draw = traffic, random.Random(seed)
        self._clock, self._found = Clock(), Outcome()
        self._link = Link(self._clock, random.Random(seed + 1_000_003), traffic.conditions)
        parties = [party(seed, n) for n in range(traffic.nodes)]
        self._ids = [one.id for one in parties]
        self._books = [kind(one) for one in parties]
        self._asleep = [False] * traffic.nodes
        bad = round(traffic.overclaimers * traffic.nodes)
        self._cheats = range(bad)
        self._silent = range(bad, bad + round(traffic.silent * traffic.nodes))
        self._pairs: dict[tuple[int, int], _Pair] = {}
        self._plan()

    def outcome(self) -> Outcome:
        """Run, and compare all books at the end, and again after some hours without new transfers."""
        end_s, found = self._traffic.hours * 3600, self._found
        for step in range(1, _LOOKS + 1):
            self._clock.run(end_s * step / _LOOKS)
            found.pending.append(self._pending())
        self._compare()
        found.drifts = self._drifts()
        self._clock.run(end_s + _DRAIN_S)
        found.drained_drifts = self._drifts()
        found.messages, found.lost = self._link.messages, self._link.lost
        return found

    def _plan(self) -> None:
        traffic, draw, end_s = self._traffic, self._draw, self._traffic.hours * 3600
        often = [1 / (rank + 1) for rank in range(traffic.partners)]
        for server in range(traffic.nodes):
            clients = draw.sample([n for n in range(traffic.nodes) if n != server], traffic.partners)
            for _ in range(max(1, traffic.transfers // _BURST)):
                client, begin_s = draw.choices(clients, often)[0], draw.uniform(0, end_s)
                for k in range(min(_BURST, traffic.transfers)):
                    size = max(1, round(_MEDIAN_BYTES * draw.lognormvariate(0, _SPREAD)))
                    self._clock.at(begin_s + k * _GAP_S, partial(self._give, server, client, size))
            if traffic.asleep_s:
                at_s = draw.uniform(0, end_s)
                self._clock.at(at_s, partial(self._sleep, server))
                self._clock.at(at_s + traffic.asleep_s, partial(self._wake, server))

    def _sleep(self, node: int) -> None:
        self._asleep[node] = True

    def _wake(self, node: int) -> None:
        self._asleep[node] = False
        before = self._known(node)
        self._books[node].restart()
        self._found.forgotten += before - self._known(node)
        self._found.restarts += 1

    def _known(self, node: int) -> int:
        """Transfers in a node's books, both columns."""
        books, pairs = self._books[node], self._pairs.values()
        given = sum(books.up(self._ids[pair.client])[0] for pair in pairs if pair.server == node)
        return given + sum(books.down(self._ids[pair.server])[0] for pair in pairs if pair.client == node)

    def _give(self, server: int, client: int, size_bytes: int) -> None:
        if self._asleep[server] or self._asleep[client]:
            return
        pair = self._pairs.setdefault((server, client), _Pair(server, client))
        lies = server in self._cheats and len(pair.sizes) % 2 == 1
        claimed_bytes = size_bytes + max(1, size_bytes // 2) if lies else size_bytes
        try:
            claim = self._books[server].give(self._ids[client], claimed_bytes)
        except CreditSpent:
            self._found.gated += self._honest(pair)
            return
        self._found.transfers += 1
        self._found.overclaims += lies
        pair.sizes.append(size_bytes)
        pair.totals.append(pair.totals[-1] + size_bytes)
        self._send(pair, len(pair.sizes), claim)
        self._watch(pair)

    def _send(self, pair: _Pair, number: int, claim: Any) -> None:
        self._link.send(partial(self._come, pair, number, claim))

    def _watch(self, pair: _Pair) -> None:
        waiting = self._books[pair.server].waiting(self._ids[pair.client])
        if waiting and not pair.timer:
            pair.timer, pair.oldest = True, waiting[0]
            self._clock.at(self._clock.now_s + pair.pause_s, partial(self._again, pair))

    def _again(self, pair: _Pair) -> None:
        """Send the oldest claim again, if it still is the oldest; later and later while nothing comes."""
        pair.timer = False
        waiting = self._books[pair.server].waiting(self._ids[pair.client])
        if waiting and waiting[0] == pair.oldest:
            pair.pause_s = min(2 * pair.pause_s, _RESEND_MOST_S)
            if not self._asleep[pair.server]:
                self._send(pair, _number(waiting[0]), waiting[0])
        else:
            pair.pause_s = _RESEND_S
        self._watch(pair)

    def _come(self, pair: _Pair, number: int, claim: Any) -> None:
        if self._asleep[pair.client]:
            return
        books, server = self._books[pair.client], self._ids[pair.server]
        before = books.down(server)
        try:
            answer = books.take(server, claim, pair.sizes[number - 1])
        except StatementRefused:
            return
        if number in pair.came:
            self._found.duplicates += 1
            # one that came too early and was forgotten in a restart is booked when it comes again, and once
            self._found.duplicates_counted += number <= before[0] and books.down(server) != before
        pair.came.add(number)
        if answer is not None and pair.client not in self._silent:
            self._link.send(partial(self._answered, pair, answer))

    def _answered(self, pair: _Pair, answer: Any) -> None:
        if not self._asleep[pair.server]:
            self._books[pair.server].confirm(self._ids[pair.client], answer)

    def _honest(self, pair: _Pair) -> bool:
        return pair.server not in self._cheats and pair.client not in self._silent

    def _drifts(self) -> list[float]:
        """Drift of every honest server that gave something to honest clients."""
        asked, owed = [0] * self._traffic.nodes, [0] * self._traffic.nodes
        for pair in self._pairs.values():
            if self._honest(pair):
                asked[pair.server] += self._books[pair.server].up(self._ids[pair.client])[1]
                owed[pair.server] += self._books[pair.client].down(self._ids[pair.server])[1]
        return [abs(up - down) / down for up, down in zip(asked, owed, strict=True) if down]

    def _pending(self) -> float:
        honest = [pair for pair in self._pairs.values() if self._honest(pair)]
        settled = sum(self._books[pair.server].up(self._ids[pair.client])[1] for pair in honest)
        return 1 - settled / max(1, sum(pair.totals[-1] for pair in honest))

    def _compare(self) -> None:
        found = self._found
        stolen = sent = 0
        for pair in self._pairs.values():
            books, client = self._books[pair.server], self._ids[pair.client]
            up, down = books.up(client), self._books[pair.client].down(self._ids[pair.server])
            if pair.server in self._cheats:
                stolen += max(0, books.forge(client) - pair.totals[-1])
                sent += pair.totals[-1]
            elif self._honest(pair):
                found.wrong_bytes += abs(up[1] - pair.totals[up[0]]) + abs(down[1] - pair.totals[down[0]])
            elif pair.client in self._silent:
                found.silent_transfers = max(found.silent_transfers, len(pair.sizes))
        found.fraud = stolen / sent if sent else 0.0


def _number(claim: Any) -> int:
    """The number of a claim of any protocol."""
    return int(claim.number if hasattr(claim, "number") else claim[0])
