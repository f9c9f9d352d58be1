"""What one more node would do to a chain: put into it, or in the place of one that is there.

One formula serves two ends: the search takes the best change, and each node that is left out is told what the
token would take with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sharedllm.nodes.planner.problem import Chain, Floats, Ints, Problem

__all__ = ["Changes", "changes", "inside"]


@dataclass(frozen=True)
class Changes:
    """For each of X nodes, all (X,): a token's time with it, its place, and whether it replaces."""

    token_s: Floats
    place: Ints
    replaces: NDArray[np.bool_]

    def apply(self, nodes: list[int], which: int, newcomer: int) -> list[int]:
        """Give the order of ``nodes`` with ``newcomer`` where change ``which`` puts it."""
        place = int(self.place[which])
        return [*nodes[:place], newcomer, *nodes[place + bool(self.replaces[which]) :]]


def changes(
    problem: Problem, chain: Chain, before_s: float, others: tuple[Floats, Ints], hop_s: Floats
) -> Changes:
    """Find the best way to bring each of X ``others`` (speeds, rooms) into ``chain`` (``before_s``).

    ``hop_s`` (X, k + 1) leads from each to the chain's k nodes and to the primary. Put in, a node takes from
    the slowest layers, and every other keeps one; replacing, it takes all layers of one node.
    """
    s_per_layer, room = others
    nodes, numbers = (np.array(column) for column in zip(*chain, strict=True))
    speeds = problem.s_per_layer[nodes]
    ring = np.array([problem.nodes, *nodes, problem.nodes])
    hops = problem.hop_s[ring[:-1], ring[1:]]
    around = np.concatenate([hop_s[:, -1:], hop_s], 1)  # as the ring: primary, k nodes, primary
    swap = around[:, :-2] + around[:, 2:] - hops[:-1] - hops[1:] + numbers * (s_per_layer[:, None] - speeds)
    swap[room[:, None] < numbers] = np.inf
    put = np.full((len(room), len(chain) + 1), np.inf)
    movable = np.sort(np.repeat(speeds, numbers - 1))[::-1]  # slowest first
    if problem.count is None and len(movable):
        slower = (movable > s_per_layer[:, None]).sum(1)
        takes = np.clip(slower, 1, np.minimum(room, len(movable)))
        work = takes * s_per_layer - np.concatenate([[0.0], movable.cumsum()])[takes]
        put = around[:, :-1] + around[:, 1:] - hops + work[:, None]
    best_swap, best_put = swap.min(1), put.min(1)
    replaces = best_swap < best_put
    return Changes(
        before_s + np.where(replaces, best_swap, best_put),
        np.where(replaces, swap.argmin(1), put.argmin(1)),
        replaces,
    )


def inside(problem: Problem, chain: Chain, before_s: float) -> tuple[list[int], Changes]:
    """The nodes of ``problem`` that ``chain`` does not use, and what each would change."""
    used = [node for node, _ in chain]
    idle = [node for node in range(problem.nodes) if node not in set(used)]
    others = (problem.s_per_layer[idle], problem.room[idle])
    return idle, changes(
        problem, chain, before_s, others, problem.hop_s[np.ix_(idle, [*used, problem.nodes])]
    )
