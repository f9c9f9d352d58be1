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
    rate = np.minimum(
        np.array([a.bandwidth_bytes_per_s for a in rows])[:, None],
        np.array([*(b.bandwidth_bytes_per_s for b in columns), np.inf]),
    )
    same = _same_host(rows, columns)
    rtt = np.fmax(_measured_s(rows, columns), _measured_s(columns, rows).T)
    rtt = np.where(np.isnan(rtt), np.where(same, links.same_host_rtt_s, links.default_rtt_s), rtt)
    to_primary = np.array([[a.rtt_s.get(PRIMARY, links.default_rtt_s)] for a in rows]).reshape(-1, 1)
    transfer = shape.activation_bytes / rate
    transfer[:, :-1][same] = 0.0
    hop: Floats = np.concatenate([rtt, to_primary], 1) / 2 + transfer + links.software_s
    return hop


def _measured_s(rows: Sequence[NodeOffer], columns: Sequence[NodeOffer]) -> Floats:
    """The round trips that each of R nodes measured to each of C, NaN for none: (R, C)."""
    ids, none = [b.id for b in columns], [np.nan] * len(columns)
    measured = [list(map(a.rtt_s.get, ids, none)) for a in rows]
    return np.array(measured, dtype=np.float64).reshape(len(rows), len(columns))


def _same_host(rows: Sequence[NodeOffer], columns: Sequence[NodeOffer]) -> NDArray[np.bool_]:
    numbers: dict[str, int] = {}
    row, column = (
        np.array([numbers.setdefault(o.host, len(numbers)) if o.host else unknown for o in some], dtype=int)
        for some, unknown in ((rows, -1), (columns, -2))
    )
    same: NDArray[np.bool_] = row[:, None] == column
    return same


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
