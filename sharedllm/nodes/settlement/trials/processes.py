"""Nodes as processes with journals on disk, whose every datagram passes a relay that loses some of them.

The relay sees what each node says before it is lost, and so knows what a node has claimed and acknowledged
when it kills it (SIGKILL, at any instruction): all of that must be in its journal afterwards. From the same
datagrams it also keeps what a one-sided ledger would have booked.

*Covered*: loss, doubling, reordering, SIGKILL at random points, a node that claims too much. *Not covered*:
power cuts (the kernel and its page cache live on); disks that lie; machines of their own.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from sharedllm.nodes.settlement.account import Account, Given, Taken
from sharedllm.nodes.settlement.journal import Journal
from sharedllm.nodes.settlement.transfers import Acknowledgement, Claim
from sharedllm.nodes.settlement.trials.clock import Conditions
from sharedllm.nodes.settlement.trials.datagrams import (
    ACKNOWLEDGED,
    CLAIMED,
    DATAGRAM_BYTES,
    DONE,
    RELAY,
    carried,
    content,
)
from sharedllm.nodes.settlement.trials.parties import party

__all__ = ["Survived", "Trial"]

_TURN_S, _DRAIN_S = 0.02, 1.0


@dataclass
class Survived:
    """What the journals say after the last kill.

    ``forgotten``: statements that a killed node had sent and that its journal lacks. ``wrong_bytes``: between
    a journal's totals and what was really sent. ``unsettled``: honest pairs that did not get to the end in
    time. ``drifts`` and ``one_sided``: by honest server. ``fraud_bytes``: credit beyond what a liar sent.
    """

    transfers: int = 0
    messages: int = 0
    lost: int = 0
    doubled: int = 0
    kills: int = 0
    forgotten: int = 0
    wrong_bytes: int = 0
    unsettled: int = 0
    duplicates: int = 0
    duplicates_counted: int = 0
    fraud_bytes: int = 0
    drifts: list[float] = field(default_factory=list)
    one_sided: list[float] = field(default_factory=list)


class Trial:
    """``nodes`` processes under ``folder`` that each give ``transfers`` transfers to each other.

    One is killed and started again after every ``kill_every`` datagrams, ``kills`` times. The last node
    claims too much in every fifth transfer. Not ``durable``: nodes keep their journals in memory, so that a
    kill must show; the trial ends with the last.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int,
        transfers: int,
        conditions: Conditions,
        *,
        kills: int,
        kill_every: int,
        seed: int,
        durable: bool = True,
    ) -> None:
        self._folder, self._nodes, self._transfers, self._seed = folder, nodes, transfers, seed
        self._conditions, self._kills, self._kill_every = conditions, kills, kill_every
        self._durable = durable
        self._liars = {nodes - 1}
        self._draw = random.Random(seed)
        self._parties = [party(seed, n) for n in range(nodes)]
        self._found = Survived()
        self._running: dict[int, tuple[subprocess.Popen[str], int]] = {}
        self._done: set[int] = set()
        self._claimed: dict[tuple[int, int], int] = {}
        self._acknowledged: dict[tuple[int, int], int] = {}
        self._first: dict[tuple[int, int], dict[int, bool]] = {}
        self._delivered: set[tuple[int, int, int]] = set()
        self._late: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()

    def run(self, limit_s: float) -> Survived:
        """Start, kill and relay until all honest nodes are settled or time is up; then read the journals."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as self._socket:
            self._socket.bind(("127.0.0.1", 0))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            self._socket.settimeout(_TURN_S)
            try:
                for node in range(self._nodes):
                    self._start(node)
                self._relay(time.monotonic() + limit_s)
            finally:
                for process, _ in self._running.values():
                    _kill(process)
        self._judge()
        return self._found

    def _relay(self, until_s: float) -> None:
        honest = set(range(self._nodes)) - self._liars
        found, due = self._found, self._kill_every
        while time.monotonic() < until_s:
            if found.kills < self._kills and found.messages >= due and self._all_spoke():
                self._kill_one()
                due = found.messages + self._kill_every
            elif found.kills == self._kills and (honest <= self._done or not self._durable):
                return
            datagram = self._receive()
            if datagram and datagram[0] == RELAY:
                assert datagram[2] == DONE
                (self._done.add if datagram[3] else self._done.discard)(datagram[1])
            elif datagram:
                self._pass_on(datagram)
            while self._late and self._late[0][0] <= time.monotonic():
                self._deliver(heapq.heappop(self._late)[2])

    def _all_spoke(self) -> bool:
        """A node that has said nothing yet would be killed in vain."""
        return len({server for server, _ in self._claimed}) == self._nodes

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(DATAGRAM_BYTES)
        except TimeoutError:
            return b""

    def _pass_on(self, datagram: bytes) -> None:
        self._note(datagram)
        self._found.messages += 1
        copies = 1
        if self._draw.random() < self._conditions.loss:
            copies = 0
            self._found.lost += 1
        elif self._draw.random() < self._conditions.doubling:
            copies = 2
            self._found.doubled += 1
        self._book_one_sided(datagram, bool(copies))
        for _ in range(copies):
            at_s = time.monotonic() + self._draw.uniform(0, self._conditions.latency_s)
            heapq.heappush(self._late, (at_s, next(self._order), datagram))

    def _note(self, datagram: bytes) -> None:
        """Remember what a node said, before anything happens to it."""
        receiver, sender, kind = datagram[:3]
        if kind == CLAIMED:
            number = Claim.from_bytes(carried(datagram[3:])[0]).number
            pair = (sender, receiver)
            self._claimed[pair] = max(number, self._claimed.get(pair, 0))
        elif kind == ACKNOWLEDGED:
            pair = (receiver, sender)
            number = Acknowledgement.from_bytes(datagram[3:]).number
            self._acknowledged[pair] = max(number, self._acknowledged.get(pair, 0))

    def _book_one_sided(self, datagram: bytes, arrives: bool) -> None:
        """A one-sided server sends a transfer once: what its first message does is all that is booked."""
        receiver, sender, kind = datagram[:3]
        if kind == CLAIMED:
            number = Claim.from_bytes(carried(datagram[3:])[0]).number
            self._first.setdefault((sender, receiver), {}).setdefault(number, arrives)

    def _deliver(self, datagram: bytes) -> None:
        receiver, sender, kind = datagram[:3]
        if receiver not in self._running:
            return
        if kind == CLAIMED:
            one = (sender, receiver, Claim.from_bytes(carried(datagram[3:])[0]).number)
            self._found.duplicates += one in self._delivered
            self._delivered.add(one)
        self._socket.sendto(datagram, ("127.0.0.1", self._running[receiver][1]))

    def _start(self, node: int) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "sharedllm.nodes.settlement.trials.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        begin = {
            "number": node,
            "nodes": self._nodes,
            "transfers": self._transfers,
            "seed": self._seed,
            "journal": str(self._journal(node)) if self._durable else "",
            "lies": node in self._liars,
            "relay": self._socket.getsockname()[1],
        }
        process.stdin.write(json.dumps(begin) + "\n")
        process.stdin.flush()
        self._running[node] = process, int(process.stdout.readline())

    def _kill_one(self) -> None:
        """End one node without a word, hold its journal to what it said, and start it again."""
        node = self._draw.randrange(self._nodes)
        _kill(self._running.pop(node)[0])
        self._found.kills += 1
        self._done.discard(node)
        heard_s = time.monotonic() + _DRAIN_S  # what it said before it died is here already, in order
        while time.monotonic() < heard_s and (datagram := self._receive()):
            if datagram[0] != RELAY:
                self._pass_on(datagram)
        account = self._account(node)
        for other in set(range(self._nodes)) - {node}:
            given = account.given.get(self._parties[other].id, Given())
            taken = account.taken.get(self._parties[other].id, Taken())
            self._found.forgotten += max(0, self._claimed.get((node, other), 0) - given.number)
            self._found.forgotten += max(0, self._acknowledged.get((other, node), 0) - taken.number)
        self._start(node)

    def _judge(self) -> None:
        found, accounts = self._found, [self._account(node) for node in range(self._nodes)]
        for server in range(self._nodes):
            asked = owed = sent = came = 0
            for client in sorted(set(range(self._nodes)) - {server}):
                given = accounts[server].given.get(self._parties[client].id, Given())
                taken = accounts[client].taken.get(self._parties[server].id, Taken())
                sizes = [len(content(server, client, n)) for n in range(1, self._transfers + 1)]
                wrong = abs(given.settled_bytes - sum(sizes[: given.settled_number]))
                found.wrong_bytes += wrong + abs(taken.total_bytes - sum(sizes[: taken.number]))
                found.duplicates_counted += taken.total_bytes > sum(sizes[: taken.number])
                if server in self._liars:
                    found.fraud_bytes += max(0, given.settled_bytes - sum(sizes[: given.number]))
                    continue
                found.unsettled += given.settled_number < self._transfers
                asked, owed = asked + given.settled_bytes, owed + taken.total_bytes
                first = self._first.get((server, client), {})
                sent += sum(sizes[n - 1] for n in first)
                came += sum(sizes[n - 1] for n, arrives in first.items() if arrives)
                found.transfers += given.settled_number
            if server not in self._liars:
                found.drifts.append(abs(asked - owed) / max(1, owed))
                found.one_sided.append(abs(sent - came) / max(1, came))

    def _account(self, node: int) -> Account:
        """What the journal of a node that does not run says."""
        journal = Journal(self._journal(node))
        try:
            return Account(self._parties[node], journal)
        finally:
            journal.close()

    def _journal(self, node: int) -> Path:
        return self._folder / f"node-{node}.db"


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
