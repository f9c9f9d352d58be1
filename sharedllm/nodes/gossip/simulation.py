"""A network of peers under a virtual clock: the same ``Peer``, with every message at the simulator's mercy.

One round is one second of virtual time, in which each node calls one partner. *Lockstep*: all call at the
same instant and every message takes a fifth of a round, so that what a node passes on in a round is what it
knew at its beginning: the synchronous model of the theory. *Jittered*: each node calls at a time of its own,
and every message takes its own time, up to ``latency`` rounds. All is drawn from one seed.

*Covered*: joining, leaving, crashing, partitions, loss, doubling, nodes that can't be called. *Not covered*:
what the bytes cost; messages are handed over as objects unless ``encoded``.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.gossip.entries import Author, Entry, Kind
from sharedllm.nodes.gossip.membership import Keyring
from sharedllm.nodes.gossip.messages import Message, decode, encode
from sharedllm.nodes.gossip.peer import Peer
from sharedllm.nodes.gossip.view import SIZE, Contact
from sharedllm.nodes.identity import NodeKey

__all__ = ["Conditions", "Network"]

_HOP = 0.2


@dataclass(frozen=True)
class Conditions:
    """What the network does to messages: shares are probabilities, ``latency`` the longest, in rounds.

    ``latency`` 0 means lockstep. ``deaf``: share of nodes that can call others and not be called.
    """

    loss: float = 0.0
    doubling: float = 0.0
    latency: float = 0.0
    deaf: float = 0.0
    encoded: bool = False


class Network:
    """Peers by number, and the time. ``reaches(a, b)`` may forbid messages between two nodes.

    ``calls``: partners of each node a round.
    """

    def __init__(self, seed: int, conditions: Conditions | None = None, calls: int = 1) -> None:
        self.calls_a_round = calls
        self.draw = random.Random(seed)
        self.conditions = conditions or Conditions()
        self.keyring = Keyring()
        self.peers: dict[int, Peer] = {}
        self.deaf: set[int] = set()
        self.now = 0.0
        self.messages = 0
        self.refused = 0
        self.calls: dict[int, int] = {}
        self.reaches: Callable[[int, int], bool] = lambda a, b: True
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._numbers = itertools.count()

    def join(self, seeds: Iterable[int] = (), kind: type[Peer] = Peer) -> int:
        """A new node that knows ``seeds``, behaving as ``kind``; its number."""
        number = next(self._numbers)
        contact = contact_of(number)
        peer = kind(
            contact,
            self.keyring,
            self.draw,
            seeds=[contact_of(seed) for seed in seeds],
            calls=self.calls_a_round,
        )
        self.peers[number] = peer
        if self.draw.random() < self.conditions.deaf:
            self.deaf.add(number)
        phase = self.draw.random() if self.conditions.latency else 1.0
        self._at(float(int(self.now)) + phase, lambda: self._tick(number, peer))
        return number

    def populate(self, count: int, kind: Callable[[int], type[Peer]] = lambda number: Peer) -> None:
        """Add ``count`` nodes whose views are already mixed: ``SIZE`` of them at random."""
        first = [self.join(kind=kind(number)) for number in range(count)]
        for number in first:
            known = self.draw.sample(first, min(SIZE + 1, count))
            offered = [contact_of(other) for other in known if other != number]
            for contact in offered[:SIZE]:
                self.peers[number].view.merge(contact, (), self.now - SIZE * self.draw.random())

    def crash(self, number: int) -> None:
        """A node is gone without a word."""
        del self.peers[number]

    def author(self) -> Author:
        """A member with a key of its own, from the seed."""
        key = NodeKey(Ed25519PrivateKey.from_private_bytes(self.draw.randbytes(32)))
        self.keyring.members.add(key.public_bytes)
        return Author(key, b"")

    def publish(self, number: int, life_s: float = 3600.0, key: bytes = b"k") -> Entry:
        """Let a node tell something new, by an author of its own."""
        entry = self.author().issue(Kind.MANIFEST, key, b"", life_s, self.now)
        self.peers[number].add(entry, self.now)
        return entry

    def knowing(self, entry: Entry) -> int:
        """How many nodes have ``entry``, or what replaced it."""
        return sum(not peer.contents.wants(entry.slot, entry.rank) for peer in self.peers.values())

    def run(self, rounds: float = 1.0) -> None:
        """Let time pass."""
        until = self.now + rounds
        collecting = gc.isenabled()
        # nothing here makes cycles, and looking for them in millions of objects takes most of the time
        gc.disable()
        try:
            while self._events and self._events[0][0] < until:
                self.now, _, work = heapq.heappop(self._events)
                work()
        finally:
            if collecting:
                gc.enable()
        self.now = until

    def spread(self, entry: Entry, ceiling: int) -> list[int]:
        """Run until all know ``entry``, at most ``ceiling`` rounds; how many knew it after each."""
        told = [self.knowing(entry)]
        while told[-1] < len(self.peers) and len(told) <= ceiling:
            self.run()
            told.append(self.knowing(entry))
        return told

    def _at(self, when: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), work))

    def _tick(self, number: int, peer: Peer) -> None:
        if self.peers.get(number) is not peer:
            return
        self._at(self.now + 1.0, lambda: self._tick(number, peer))
        for partner, sync in peer.tick(self.now):
            called = int(partner.id, 16)
            self.calls[called] = self.calls.get(called, 0) + 1
            if called not in self.deaf:
                self._send(number, called, sync)

    def _send(self, sender: int, receiver: int, message: Message) -> None:
        conditions, draw = self.conditions, self.draw.random
        self.messages += 1
        if conditions.loss and draw() < conditions.loss:
            return
        copies = 2 if conditions.doubling and draw() < conditions.doubling else 1
        for _ in range(copies):
            hop = conditions.latency * draw() if conditions.latency else _HOP
            self._at(self.now + hop, lambda: self._deliver(sender, receiver, message))

    def _deliver(self, sender: int, receiver: int, message: Message) -> None:
        peer = self.peers.get(receiver)
        if peer is None or not self.reaches(sender, receiver):
            return
        if self.conditions.encoded:
            message = decode(encode(message))
        try:
            answer = peer.receive(contact_of(sender).id, message, self.now)
        except SharedLLMError:
            self.refused += 1
            return
        if answer is not None:
            self._send(receiver, sender, answer)


def contact_of(number: int) -> Contact:
    """Where a simulated node is found."""
    return Contact(f"{number:032x}", "simulated", 1)
