"""The planning problem in numbers: speeds, room and hops as arrays, and what a chain of nodes costs.

Letters: n nodes, L layers. Index n in ``hop_s`` is the primary, which is both ends of the ring. A hop costs
``rtt/2 + bytes/bandwidth + software``, the same both ways: of two measurements of one link the larger counts,
and of two bandwidths the smaller. Within one machine bytes cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sharedllm.nodes.planner.offers import PRIMARY, Links, ModelShape, NodeOffer

__all__ = ["Chain", "Floats", "Ints", "Problem", "hops_s", "room", "square", "token_s"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Chain = tuple[tuple[int, int], ...]  # (node's index, layers ≥ 1) in the order of the ring


@dataclass(frozen=True)
class Problem:
    """Place ``layers`` on nodes with ``s_per_layer`` (n,), ``room`` in layers (n,), ``hop_s`` (n + 1, n + 1).

    ``count`` is the exact number of nodes to use, or None for any.
    """

    s_per_layer: Floats
    room: Ints
    hop_s: Floats
    layers: int
    count: int | None = None

    @property
    def nodes(self) -> int:
        """How many nodes there are to choose from."""
        return len(self.s_per_layer)

    def only(self, picked: Sequence[int]) -> Problem:
        """The same problem with these nodes alone, renumbered in the order given."""
        rows = np.asarray([*picked, self.nodes])
        return Problem(
            self.s_per_layer[rows[:-1]],
            self.room[rows[:-1]],
            self.hop_s[np.ix_(rows, rows)],
            self.layers,
            self.count,
        )


def room(offer: NodeOffer, shape: ModelShape) -> int:
    """How many layers, with their cache, the node can hold."""
    return min(int(offer.memory_bytes // shape.bytes_per_layer), shape.layers)


def hops_s(
    rows: Sequence[NodeOffer], columns: Sequence[NodeOffer], shape: ModelShape, links: Links
) -> Floats:
    """Cost of one hop from each of R nodes to each of C and, the last column, the primary: (R, C + 1)."""
    rtt = np.array(
        [[*(_rtt_s(a, b, links) for b in columns), a.rtt_s.get(PRIMARY, links.default_rtt_s)] for a in rows]
    ).reshape(len(rows), len(columns) + 1)
    from_rate = np.array([a.bandwidth_bytes_per_s for a in rows])
    to_rate = np.array([*(b.bandwidth_bytes_per_s for b in columns), np.inf])
    transfer = shape.activation_bytes / np.minimum(from_rate[:, None], to_rate)
    hosts = np.array([b.host for b in columns], dtype=object)
    for row, offer in enumerate(rows):
        if offer.host:
            transfer[row, :-1][hosts == offer.host] = 0.0
    hop: Floats = rtt / 2 + transfer + links.software_s
    return hop


def _rtt_s(a: NodeOffer, b: NodeOffer, links: Links) -> float:
    there, back = a.rtt_s.get(b.id), b.rtt_s.get(a.id)
    if there is None:
        there = back
    if there is None:
        return links.same_host_rtt_s if a.host and a.host == b.host else links.default_rtt_s
    return there if back is None else max(there, back)


def square(offers: Sequence[NodeOffer], shape: ModelShape, links: Links) -> Floats:
    """``hop_s`` between all of n nodes and the primary, (n + 1, n + 1); no node hops to itself."""
    n = len(offers)
    hop = np.full((n + 1, n + 1), np.inf)
    hop[:n] = hops_s(offers, offers, shape, links)
    hop[n, :n] = hop[:n, n]
    np.fill_diagonal(hop, np.inf)
    return hop


def token_s(problem: Problem, chain: Chain) -> float:
    """What one token takes along ``chain``: all layers, and all hops of the ring."""
    ring = [problem.nodes, *(node for node, _ in chain), problem.nodes]
    compute = sum(layers * float(problem.s_per_layer[node]) for node, layers in chain)
    return compute + float(problem.hop_s[ring[:-1], ring[1:]].sum())
