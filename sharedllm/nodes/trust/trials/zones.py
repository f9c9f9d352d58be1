"""Requests that must stay in a zone, among nodes that lie about where they are, refuse, or pass on.

The simulator knows where every machine stands; the routers know what is claimed, or what is attested. A leak
is a request that reached a machine outside its zone, noticed or not.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.nodes.identity import NodeKey, node_id
from sharedllm.nodes.trust.jurisdiction import OutOfZone, Placement, Zone, check_transit, pass_on, place

__all__ = ["Tally", "World"]

_NOW, _UNTIL = 1000, 2000
_ATTESTERS = 3


@dataclass
class Tally:
    """What became of requests.

    ``asked``: hops asked in all; ``leaked``: reached a machine elsewhere; ``unnoticed``: of those, with an
    answer that passed every check.
    """

    requests: int = 0
    served: int = 0
    asked: int = 0
    leaked: int = 0
    unnoticed: int = 0


@dataclass(frozen=True)
class _Node:
    key: NodeKey
    id: str
    public: bytes
    zone: str
    bad: bool


class World:
    """``nodes`` spread over zones by ``shares`` (the rest elsewhere); of each zone a share is ``byzantine``.

    Bad nodes elsewhere claim to be in every zone, with placements that they forged; bad nodes in a zone have
    true placements and refuse to serve. ``corrupt`` of three attesters sign whatever bad nodes ask.
    """

    def __init__(
        self,
        nodes: int,
        shares: Mapping[str, float],
        byzantine: float,
        seed: int,
        *,
        quorum: int,
        corrupt: int = 0,
    ) -> None:
        self.draw = random.Random(seed)
        self._nodes: list[_Node] = []
        counts = {zone: round(nodes * share) for zone, share in shares.items()}
        counts["elsewhere"] = nodes - sum(counts.values())
        for zone, count in counts.items():
            bad = round(count * byzantine)
            self._nodes += [self._node(zone, number < bad) for number in range(count)]
        self.claimed = {
            zone: [node for node in self._nodes if node.zone == zone or node.bad] for zone in shares
        }
        self.zones = {zone: self._attested(zone, quorum, corrupt) for zone in shares}
        self.placed = {
            zone: [node for node in claimed if self.zones[zone].holds(node.id, _NOW)]
            for zone, claimed in self.claimed.items()
        }

    def run(self, requests: int, hops: int, *, attested: bool = True, traitors: str = "") -> Tally:
        """Send ``requests``, zones in turn, over ``hops`` nodes each.

        ``attested``: off, whoever claims the zone is asked. ``traitors``: what bad nodes that are truly
        placed do instead of refusing: "relay" (copy the request outside and serve) or "divert" (pass it to a
        machine outside, which answers in place of the next hop).
        """
        tally, zones = Tally(), sorted(self.zones)
        for number in range(requests):
            zone = zones[number % len(zones)]
            tally.requests += 1
            pool = (self.placed if attested else self.claimed)[zone]
            route = self._route(zone, pool, hops, tally, serving=bool(traitors))
            if route is not None:
                self._carry(zone, route, attested, traitors, tally)
        return tally

    def _carry(self, zone: str, route: list[_Node], attested: bool, traitors: str, tally: Tally) -> None:
        request = self.draw.randbytes(32)
        traitor = any(node.bad and node.zone == zone for node in route)
        leaked = any(node.zone != zone for node in route) or (bool(traitors) and traitor)
        ids = [node.id for node in route]
        signed = [
            pass_on(node.key, request, following.id)
            for node, following in zip(route, [*route[1:], route[-1]], strict=True)
        ]
        if traitor and traitors == "divert":
            # the hop after the traitor never saw the request, so that somebody else signs for it
            at = next(i for i, node in enumerate(route) if node.bad)
            signed[min(at + 1, len(route) - 1)] = pass_on(self._nodes[-1].key, request, ids[-1])
        try:
            if attested:
                self.zones[zone].require(ids, _NOW)
                check_transit(ids, {node.id: node.public for node in route}, request, signed)
            tally.served += 1
            tally.unnoticed += leaked
        except OutOfZone:
            pass
        tally.leaked += leaked

    def _route(
        self, zone: str, pool: list[_Node], hops: int, tally: Tally, *, serving: bool
    ) -> list[_Node] | None:
        """``hops`` nodes that agree to serve, asked in random order; None if there are too few."""
        route = []
        for node in self.draw.sample(pool, len(pool)):
            tally.asked += 1
            if serving or not (node.bad and node.zone == zone):
                route.append(node)
            if len(route) == hops:
                return route
        return None

    def _attested(self, zone: str, quorum: int, corrupt: int) -> Zone:
        attesters = [self._key() for _ in range(_ATTESTERS)]
        made = Zone(zone, [attester.public_bytes for attester in attesters], quorum)
        for node in self._nodes:
            if node.zone == zone:
                made.hear(place(attester, node.id, zone, 0, _UNTIL) for attester in attesters)
            elif node.bad:
                made.hear(place(attester, node.id, zone, 0, _UNTIL) for attester in attesters[:corrupt])
                made.hear(self._forged(node, zone, attesters))
        return made

    def _forged(self, node: _Node, zone: str, attesters: list[NodeKey]) -> list[Placement]:
        """Its own word, another's placement with its name on it, a placement of last year, one elsewhere."""
        honest = next(other for other in self._nodes if other.zone == zone)
        taken = place(attesters[0], honest.id, zone, 0, _UNTIL)
        return [
            place(node.key, node.id, zone, 0, _UNTIL),
            replace(taken, node=node.id),
            place(attesters[0], node.id, zone, 0, _NOW - 1),
            replace(place(attesters[1], node.id, "elsewhere", 0, _UNTIL), zone=zone),
        ]

    def _node(self, zone: str, bad: bool) -> _Node:
        key = self._key()
        return _Node(key, node_id(key.public_bytes), key.public_bytes, zone, bad)

    def _key(self) -> NodeKey:
        return NodeKey(Ed25519PrivateKey.from_private_bytes(self.draw.randbytes(32)))
