"""Which nodes, in which order: exact for a few nodes, a stated heuristic for many.

- up to ``EXACT_NODES``: every subset in every order (``exhaustive``), so the plan is the optimum and one more
  node never makes it worse.
- more: from three orders (nearest to the primary first, fastest first, nearest neighbour), the best chain
  along each (``along``), improved by turns until nothing helps: a shorter ring (``tour``), the best chain
  along it with every idle node at its cheapest gap, the best single change (``changes``). Then the chain with
  the idle nodes that would cost least, ``CORE_NODES`` together, is solved exactly while that improves it.

Cost for n nodes and L layers: O(2ⁿ·n²·L), or O(n²·L) for each of some ten rounds.

*Covered*: optimal up to ``EXACT_NODES``; never worse than the best single node, or than any single change.
*Not covered*: optimality beyond that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sharedllm.nodes.planner.along import best_along
from sharedllm.nodes.planner.changes import inside
from sharedllm.nodes.planner.exhaustive import best_of_all
from sharedllm.nodes.planner.problem import Chain, Problem, token_s
from sharedllm.nodes.planner.tour import shorten

__all__ = ["EXACT_NODES", "search"]

EXACT_NODES = 10
CORE_NODES = 8
_GAIN = 1e-9  # relative; less is not worth another round, or a further node


def search(
    problem: Problem,
    first: Sequence[int] = (),
    *,
    exact_nodes: int = EXACT_NODES,
    core_nodes: int = CORE_NODES,
) -> Chain | None:
    """Give the fastest chain found, from the orders above or from ``first`` alone; None if nothing fits."""
    if problem.nodes <= exact_nodes:
        return best_of_all(problem)
    starts = dict.fromkeys(best_along(problem, order) for order in ([first] if first else _orders(problem)))
    chains = [_improve(problem, chain) for chain in starts if chain is not None]
    if not chains:
        return None
    best = _best(problem, chains)
    while len(best) < core_nodes:
        better = _solve_core(problem, best, core_nodes)
        if better is None or not _improves(problem, better, best):
            break
        best = _improve(problem, better)
    return _best(problem, [best, *_alone(problem)])


def _best(problem: Problem, chains: Iterable[Chain]) -> Chain:
    return min(chains, key=lambda chain: (token_s(problem, chain), len(chain), chain))


def _improves(problem: Problem, better: Chain, chain: Chain) -> bool:
    return token_s(problem, better) < token_s(problem, chain) * (1 - _GAIN)


def _alone(problem: Problem) -> list[Chain]:
    if problem.count not in (None, 1):
        return []
    return [
        ((node, problem.layers),) for node in range(problem.nodes) if problem.room[node] >= problem.layers
    ]


def _orders(problem: Problem) -> list[list[int]]:
    everyone = range(problem.nodes)
    from_primary = problem.hop_s[-1]
    near = sorted(everyone, key=lambda node: (from_primary[node], node))
    fast = sorted(everyone, key=lambda node: (problem.s_per_layer[node], node))
    neighbours: list[int] = []
    left, here = set(everyone), problem.nodes
    while left:
        here = min(left, key=lambda node: (problem.hop_s[here, node], node))
        left.remove(here)
        neighbours.append(here)
    return [near, fast, neighbours]


def _improve(problem: Problem, chain: Chain) -> Chain:
    """Shorten the ring, choose again along it, make the best single change: by turns, until nothing helps."""
    while True:
        nodes = shorten(problem.hop_s, [node for node, _ in chain])
        better = best_along(problem, _with_idle(problem, nodes))
        if better is None or not _improves(problem, better, chain):
            better = _best_change(problem, chain)
        if better is None or not _improves(problem, better, chain):
            return chain
        chain = better


def _with_idle(problem: Problem, nodes: list[int]) -> list[int]:
    """Give ``nodes`` with every other node in the gap where it lengthens the ring least."""
    idle = np.setdiff1d(np.arange(problem.nodes), nodes)
    ring = np.array([problem.nodes, *nodes, problem.nodes])
    hops = problem.hop_s[np.ix_(idle, ring)]
    gaps = (hops[:, :-1] + hops[:, 1:] - problem.hop_s[ring[:-1], ring[1:]]).argmin(1)
    order: list[int] = []
    for gap, node in enumerate([*nodes, -1]):
        order += [*idle[gaps == gap].tolist(), node]
    return order[:-1]


def _best_change(problem: Problem, chain: Chain) -> Chain | None:
    idle, change = inside(problem, chain, token_s(problem, chain))
    if not idle:
        return None
    which = int(change.token_s.argmin())
    return best_along(problem, change.apply([node for node, _ in chain], which, idle[which]))


def _solve_core(problem: Problem, chain: Chain, core_nodes: int) -> Chain | None:
    idle, change = inside(problem, chain, token_s(problem, chain))
    cheapest = [idle[which] for which in np.argsort(change.token_s, kind="stable")]
    core = sorted([*(node for node, _ in chain), *cheapest[: core_nodes - len(chain)]])
    solved = best_of_all(problem.only(core))
    return None if solved is None else tuple((core[node], layers) for node, layers in solved)
