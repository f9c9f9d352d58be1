"""How many rounds news takes in a simulated network, and what theory says it takes.

*Covered*: sizes, bad conditions, nodes that come and go, a partition that heals, topologies that don't mix,
entries that end. *Not covered*: adversaries (``sharedllm.nodes.trust``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sharedllm.nodes.gossip.entries import Kind
from sharedllm.nodes.gossip.simulation import Conditions, Network, contact_of
from sharedllm.nodes.gossip.view import Contact, Sample, View

__all__ = ["Spread", "bound_rounds", "churned", "fixed", "forgotten", "parted", "spread"]


def bound_rounds(nodes: int) -> float:
    """log₃ n + log₂ ln n: the expected rounds of push-pull with uniform partners, up to an additive constant.

    Doerr and Kostrygin, "Randomized Rumor Spreading Revisited" (ICALP 2017), who sharpen Karp et al. (FOCS
    2000). It is for a complete graph; a partial view that is shuffled only approaches it.
    """
    return math.log(nodes, 3) + math.log2(math.log(nodes))


@dataclass(frozen=True)
class Spread:
    """The course of one piece of news: who knew it after each round, of how many.

    ``rounds`` until all knew, or None; ``busiest``: the most calls that one node got in one round, on
    average over its rounds.
    """

    knew: tuple[int, ...]
    nodes: int
    busiest: float

    @property
    def rounds(self) -> int | None:
        """Rounds until all knew; None if the ceiling came first."""
        return len(self.knew) - 1 if self.knew[-1] == self.nodes else None

    @property
    def share(self) -> float:
        """Of all nodes, those that knew at the end."""
        return self.knew[-1] / self.nodes


def spread(nodes: int, seed: int, ceiling: int, conditions: Conditions | None = None) -> Spread:
    """News from one node in a network whose views are mixed."""
    net = Network(seed, conditions)
    net.populate(nodes)
    net.run(1)
    return _course(net, ceiling)


def fixed(
    topology: Literal["ring", "star"], nodes: int, seed: int, ceiling: int, *, beheaded: bool = False
) -> Spread:
    """The same peers, each bound to its neighbours; ``beheaded``: the first node crashes beforehand."""
    net = Network(seed)
    net.populate(nodes)
    for number, peer in net.peers.items():
        if topology == "ring":
            neighbours = [(number - 1) % nodes, (number + 1) % nodes]
        else:
            neighbours = [0] if number else list(range(1, nodes))
        peer.view = _Bound(peer.me, net.draw, map(contact_of, neighbours))
    if beheaded:
        net.crash(0)
    net.run(1)
    return _course(net, ceiling)


def churned(nodes: int, seed: int, share: float, ceiling: int) -> float:
    """Share of those here for 3 rounds that know the news in the end; each round ``share`` are replaced.

    Newcomers are told three living nodes. The teller stays for two rounds.
    """
    net = Network(seed)
    net.populate(nodes)
    net.run(1)
    entry = net.publish(0)
    arrivals = [nodes - 1] * 3
    for _ in range(ceiling):
        living = sorted(net.peers)
        for number in net.draw.sample([n for n in living if n or net.now > 3], int(share * nodes)):
            net.crash(number)
        staying = sorted(net.peers)
        for _ in range(nodes - len(staying)):
            net.join(seeds=net.draw.sample(staying, 3))
        arrivals.append(max(net.peers))
        net.run()
    settled = [peer for number, peer in net.peers.items() if number <= arrivals[-4]]
    return sum(not peer.contents.wants(entry.slot, entry.rank) for peer in settled) / len(settled)


def parted(nodes: int, seed: int, parted_rounds: int, ceiling: int) -> tuple[float, float, int | None]:
    """Two halves that can't reach each other for a while, with news in each.

    Returns the largest share that knew the other half's news before healing, the share that knows both
    ``ceiling`` rounds after it, and the rounds from healing until all did.
    """
    net = Network(seed)
    net.populate(nodes)
    half = nodes // 2
    net.run(1)
    net.reaches = lambda a, b: (a < half) == (b < half)
    net.run(parted_rounds)
    left, right = net.publish(0), net.publish(nodes - 1)
    net.run(parted_rounds)
    leaked = max(net.knowing(left) - half, net.knowing(right) - (nodes - half), 0) / nodes
    net.reaches = lambda a, b: True
    for rounds in range(1, ceiling + 1):
        net.run()
        if net.knowing(left) == net.knowing(right) == nodes:
            return leaked, 1.0, rounds
    return leaked, min(net.knowing(left), net.knowing(right)) / nodes, None


def forgotten(nodes: int, seed: int, life_rounds: int) -> tuple[int, int, int]:
    """Entries that must end: one expires, one is withdrawn, and later all nodes are given old copies of both.

    Returns how many nodes knew the first at its height, how many hold it (or take it again) after its end,
    and how many show the withdrawn one as living.
    """
    net = Network(seed)
    net.populate(nodes)
    net.run(1)
    expiring = net.publish(0, life_s=life_rounds)
    author = net.author()
    told = author.issue(Kind.MANIFEST, b"k", b"{}", 10 * life_rounds, net.now)
    net.peers[1].add(told, net.now)
    net.run(life_rounds // 2)
    height = net.knowing(expiring)
    ended = author.withdraw(Kind.MANIFEST, b"k", net.now)
    net.peers[2].add(ended, net.now)
    net.run(life_rounds)
    for peer in net.peers.values():
        for stale in (expiring, told):
            peer.add(stale, net.now)
    net.run(2)
    held = sum(peer.contents.get(expiring.slot) is not None for peer in net.peers.values())
    revived = sum(
        any(entry.slot == told.slot for entry in peer.live(Kind.MANIFEST, net.now))
        for peer in net.peers.values()
    )
    return height, held, revived


class _Bound(View):
    """A view that never changes."""

    __slots__ = ("_neighbours",)

    def __init__(self, me: Contact, draw: random.Random, neighbours: Iterable[Contact]) -> None:
        super().__init__(me, draw)
        self._neighbours = tuple(neighbours)

    def partner(self) -> Contact | None:
        return self._random.choice(self._neighbours)

    def sample(self, besides: str, now: float) -> Sample:
        return ()

    def merge(self, partner: Contact, offered: Sample, now: float) -> None:
        return

    def missed(self, contact: Contact) -> None:
        return


def _course(net: Network, ceiling: int) -> Spread:
    teller = min(net.peers)
    entry, began, calls = net.publish(teller), net.now, dict(net.calls)
    knew = net.spread(entry, ceiling)
    rounds = max(net.now - began, 1.0)
    busiest = max((count - calls.get(number, 0)) / rounds for number, count in net.calls.items())
    return Spread(tuple(knew), len(net.peers), busiest)
