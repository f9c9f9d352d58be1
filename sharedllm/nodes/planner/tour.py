"""A short ring through given nodes, from the primary and back: 2-opt and moves of one node while they help.

With the cuts fixed, the order of a pipeline's nodes changes its hops only: the travelling salesman's problem.
O(k²) per move for k nodes; no promise beyond "no worse than before". Source: Croes 1958 (2-opt), Or 1976.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sharedllm.nodes.planner.problem import Floats

__all__ = ["shorten"]

_GAIN_S = 1e-12  # a smaller one may be rounding, and could be undone for ever


def shorten(hop_s: Floats, nodes: Sequence[int]) -> list[int]:
    """Order ``nodes`` so that their ring through the primary, the last index of ``hop_s``, is no longer."""
    primary = len(hop_s) - 1
    ring = [primary, *nodes, primary]
    backwards = np.where(np.tri(len(nodes), dtype=bool), np.inf, 0.0)
    while len(nodes) > 2:
        r = np.array(ring)
        between = hop_s[np.ix_(r, r)]
        hops = between.diagonal(1)
        reversal, move = _best_reversal(between, hops, backwards), _best_move(between, hops)
        gain, first, last = min(reversal, move)
        if gain > -_GAIN_S:
            break
        if reversal <= move:
            ring[first : last + 1] = ring[first : last + 1][::-1]
        else:
            node = ring.pop(first)
            ring.insert(last + (last < first), node)
    return ring[1:-1]


def _best_reversal(between: Floats, hops: Floats, backwards: Floats) -> tuple[float, int, int]:
    """The change (s) of reversing positions i … j of the ring that changes most, with i and j."""
    delta = between[:-2, 1:-1] + between[1:-1, 2:] - hops[:-1, None] - hops[None, 1:] + backwards
    i, j = divmod(int(delta.argmin()), len(delta))
    return float(delta[i, j]), i + 1, j + 1


def _best_move(between: Floats, hops: Floats) -> tuple[float, int, int]:
    """The change (s) of moving position i of the ring into the gap behind position j that changes most."""
    taken_out = between.diagonal(2) - hops[:-1] - hops[1:]
    delta = between[1:-1, :-1] + between[1:-1, 1:] - hops + taken_out[:, None]
    i, j = divmod(int(delta.argmin()), delta.shape[1])
    return float(delta[i, j]), i + 1, j
