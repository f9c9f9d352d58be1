"""The best plan over every subset of a few nodes in every order, exactly.

Dynamic programming over (set of nodes used, last of them, layers placed so far), after Held & Karp 1962 with
the layers as a further dimension: O(2ⁿ·n²·L) additions and 8·2ⁿ·n·L bytes for n nodes and L layers.
"""

from __future__ import annotations

import numpy as np

from sharedllm.nodes.planner.along import fill, taken
from sharedllm.nodes.planner.problem import Chain, Floats, Ints, Problem

__all__ = ["best_of_all"]

_TIE = 1e-12  # relative; sums of the same times in another order differ by less


def best_of_all(problem: Problem) -> Chain | None:
    """Give the fastest chain there is; None if the nodes can't hold the model. Ties go to fewer nodes."""
    n, layers = problem.nodes, problem.layers
    sets = np.arange(1 << n)
    sizes = np.array([s.bit_count() for s in range(1 << n)])
    reached = np.full((1 << n, n, layers + 1), np.inf)
    for size in range(1, (problem.count or n) + 1):
        for node in range(n):
            now = sets[(sizes == size) & ((sets >> node) & 1 == 1)]
            arrived = _arrived(problem, reached, now ^ (1 << node), node)
            reached[now, node] = fill(arrived, float(problem.s_per_layer[node]), int(problem.room[node]))
    totals = reached[:, :, layers] + problem.hop_s[:n, n]
    if problem.count is not None:
        totals[sizes != problem.count] = np.inf
    if not np.isfinite(totals).any():
        return None
    ties = np.argwhere(totals <= totals.min() * (1 + _TIE))
    chosen, last = min(ties.tolist(), key=lambda tie: (sizes[tie[0]], tie))
    return _walk_back(problem, reached, chosen, last)


def _arrived(problem: Problem, reached: Floats, before: Ints, node: int) -> Floats:
    """Time until ``node`` starts, for each of S sets used before it, by layers done: (S, L + 1)."""
    hop = problem.hop_s[: problem.nodes, node]
    arrived: Floats = (reached[before] + hop[:, None]).min(1)
    arrived[before == 0, 0] = problem.hop_s[problem.nodes, node]
    return arrived


def _walk_back(problem: Problem, reached: Floats, chosen: int, node: int) -> Chain:
    chain: list[tuple[int, int]] = []
    layers = problem.layers
    while True:
        chosen ^= 1 << node
        arrived = _arrived(problem, reached, np.array([chosen]), node)[0]
        took = taken(arrived, float(problem.s_per_layer[node]), int(problem.room[node]), layers)
        chain.append((node, took))
        layers -= took
        if not layers:
            return tuple(reversed(chain))
        hop = problem.hop_s[: problem.nodes, node]
        node = int((reached[chosen, :, layers] + hop).argmin())
