"""From all nodes to a chain: a shortlist, the search over it, and whether anyone outside it would help.

The search takes time in proportion to the square of its nodes, so of many only 64 enter: those that lead by
price per layer with the way there, by speed, by room, by nearness to the primary, in turns. After it every
other node is tried as a single change; those that help join the shortlist, and the search goes on from there.
So no node is left out that would by itself make the plan faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sharedllm.nodes.planner.changes import Changes, changes
from sharedllm.nodes.planner.offers import Links, ModelShape, NodeOffer
from sharedllm.nodes.planner.pipeline import Plan, PlannedSpan
from sharedllm.nodes.planner.problem import Chain, Floats, Ints, Problem, hops_s, square, token_s
from sharedllm.nodes.planner.search import search

__all__ = ["Choice", "choose", "shortlist"]

_SHORTLIST = 64
_NEWCOMERS = 16
_GAIN = 1e-9


@dataclass(frozen=True)
class Choice:
    """A chain over a problem's nodes, what it takes, and what every idle node would make of it.

    As indices of all offers, ``picked`` are the problem's nodes and ``idle`` all that the chain does not use.
    """

    problem: Problem
    picked: list[int]
    chain: Chain
    token_s: float
    idle: list[int]
    changes: Changes

    @property
    def nodes(self) -> list[int]:
        """The nodes of the chain, in its order, as indices of all offers."""
        return [self.picked[node] for node, _ in self.chain]

    def as_plan(
        self, offers: Sequence[NodeOffer], links: Links, left_out: Mapping[str, str], note: str = ""
    ) -> Plan:
        """Give the chain its spans, names and times; ``left_out`` is said in the order of ids."""
        ring = [self.problem.nodes, *(node for node, _ in self.chain), self.problem.nodes]
        hops = self.problem.hop_s[ring[:-1], ring[1:]].tolist()
        spans: list[PlannedSpan] = []
        start = 0
        for (node, layers), hop in zip(self.chain, hops[:-1], strict=True):
            compute_s = layers * float(self.problem.s_per_layer[node])
            spans.append(PlannedSpan(offers[self.picked[node]].id, start, start + layers, compute_s, hop))
            start += layers
        return Plan(
            tuple(spans),
            self.token_s,
            self.token_s - len(hops) * links.software_s,
            hops[-1],
            tuple(sorted(left_out.items())),
            note,
        )


class _Hops:
    """Hops from all offers, looked up once for each node that a chain uses; most are never asked for."""

    def __init__(self, offers: Sequence[NodeOffer], shape: ModelShape, links: Links) -> None:
        self._offers, self._shape, self._links = offers, shape, links
        self._to: dict[int, Floats] = {}
        self.to_primary = hops_s(offers, [], shape, links)[:, 0]

    def square(self, picked: Sequence[int]) -> Floats:
        """Between all of ``picked`` and the primary."""
        return square([self._offers[node] for node in picked], self._shape, self._links)

    def between(self, idle: Sequence[int], used: Sequence[int]) -> Floats:
        """From each of ``idle`` to each of ``used``, and in the last column to the primary."""
        new = [node for node in used if node not in self._to]
        found = hops_s([self._offers[node] for node in new], self._offers, self._shape, self._links)
        self._to.update(zip(new, found[:, :-1], strict=True))
        return np.stack([*(self._to[node] for node in used), self.to_primary], 1)[idle]


def choose(
    offers: Sequence[NodeOffer], room: Ints, shape: ModelShape, links: Links, count: int | None
) -> Choice:
    """Choose the chain over ``offers``, which hold the model together (with ``count``: some that many do)."""
    s_per_layer = np.array([offer.s_per_layer for offer in offers])
    hops = _Hops(offers, shape, links)
    picked = shortlist(s_per_layer, room, hops.to_primary, shape.layers, count)
    first: list[int] = []
    while True:  # each round is faster than the one before, or the last
        problem = Problem(s_per_layer[picked], room[picked], hops.square(picked), shape.layers, count)
        chain = search(problem, [picked.index(node) for node in first])
        if chain is None:
            raise AssertionError("the shortlist holds the model whenever all nodes do")
        before_s = token_s(problem, chain)
        used = [picked[node] for node, _ in chain]
        idle = np.setdiff1d(np.arange(len(offers)), used).tolist()
        others = (s_per_layer[idle], room[idle])
        change = changes(problem, chain, before_s, others, hops.between(idle, used))
        order = np.argsort(change.token_s, kind="stable").tolist()
        better = [which for which in order if change.token_s[which] < before_s * (1 - _GAIN)]
        if not better:
            return Choice(problem, picked, chain, before_s, idle, change)
        first = change.apply(used, better[0], idle[better[0]])
        picked = sorted({*picked, *(idle[which] for which in better[: max(_NEWCOMERS, len(chain))])})


def shortlist(
    s_per_layer: Floats, room: Ints, from_primary_s: Floats, layers: int, count: int | None
) -> list[int]:
    """Give the indices, ascending, of the nodes worth searching: they hold the model if all do."""
    if len(room) <= _SHORTLIST:
        return list(range(len(room)))
    by_room = np.argsort(-room, kind="stable").tolist()
    leaders = [
        np.argsort(key, kind="stable").tolist()
        for key in (s_per_layer + 2 * from_primary_s / room, s_per_layer, -room, from_primary_s)
    ]
    picked = dict.fromkeys(by_room[:count] if count is not None else [])
    for turn in zip(*leaders, strict=True):
        if len(picked) >= _SHORTLIST:
            break
        picked.update(dict.fromkeys(turn))
    held = int(room[list(picked)].sum())
    for node in by_room:
        if held >= layers:
            break
        if node not in picked:
            picked[node] = None
            held += int(room[node])
    return sorted(picked)
