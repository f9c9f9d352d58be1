"""Spread: a given number of workers whose slowest stage is as fast as can be, so that streams keep all busy.

Full pipelines yield one token per slowest stage, so that stage is made as fast as it can be first (exact);
among the pipelines that reach it, the search finds the one with the least time per token.

With stages of at most τ seconds, node i takes ``min(room, ⌊τ / s_per_layer⌋)`` layers; τ suffices when the
``count`` nodes that take most hold the model. τ is always a whole number of some node's layers, so the least
one is found by bisection over those: O(n·L log(n·L)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sharedllm.nodes.planner import sentences
from sharedllm.nodes.planner.choice import choose
from sharedllm.nodes.planner.offers import Links, ModelShape, NodeOffer
from sharedllm.nodes.planner.pipeline import NoHome, Plan
from sharedllm.nodes.planner.problem import Floats, Ints

__all__ = ["slowest_stage_s", "spread"]


def spread(
    offers: Sequence[NodeOffer],
    room: Ints,
    shape: ModelShape,
    asked: int | None,
    links: Links,
    away: Mapping[str, str],
) -> Plan | NoHome:
    """Plan over exactly ``asked`` of ``offers`` (None: all), or as many as there are; ``away`` took no part.

    All of ``offers`` together hold the model, each at least a layer.
    """
    wanted = asked or len(offers)
    count = min(wanted, len(offers), shape.layers)
    s_per_layer = np.array([offer.s_per_layer for offer in offers])
    stage_s = slowest_stage_s(s_per_layer, room, shape.layers, count)
    if np.isinf(stage_s):
        return sentences.too_few_allowed(int(np.sort(room)[::-1][:count].sum()), count, shape)
    takes = _layers_within(stage_s, s_per_layer, room)
    # Whoever takes less than the count − 1 best leave over can be in no pipeline that is as even.
    best_others = np.sort(takes)[::-1][: count - 1].sum()
    able = np.flatnonzero(takes >= max(1, shape.layers - best_others))
    able_offers = [offers[node] for node in able.tolist()]
    choice = choose(able_offers, takes[able], shape, links, count)
    left = {**away, **_left_out(offers, room, s_per_layer, able[choice.nodes], stage_s, shape.layers)}
    note = sentences.only_so_many(wanted, count, shape.layers) if count < wanted else ""
    return choice.as_plan(able_offers, links, left, note)


def _left_out(
    offers: Sequence[NodeOffer], room: Ints, s_per_layer: Floats, chosen: Ints, stage_s: float, layers: int
) -> dict[str, str]:
    idle = np.setdiff1d(np.arange(len(offers)), chosen)
    stages = _slowest_stages_with_s(
        (s_per_layer[chosen], room[chosen]), (s_per_layer[idle], room[idle]), layers
    )
    said = {}
    for node, with_s in zip(idle.tolist(), stages.tolist(), strict=True):
        offer, count = offers[node], len(chosen)
        said[offer.id] = (
            sentences.no_room_in_turn(offer, count)
            if np.isinf(with_s)
            else sentences.uneven(offer, count, max(with_s, stage_s), stage_s)
        )
    return said


def _layers_within(stage_s: float, s_per_layer: Floats, room: Ints) -> Ints:
    """How many layers each node computes in ``stage_s``, as far as it has room: (n,)."""
    # A stage of n layers takes n · s, which divided by s may be just below n.
    whole = np.floor(stage_s / s_per_layer * (1 + 1e-12))
    return np.minimum(whole, room).astype(np.int64)


def slowest_stage_s(s_per_layer: Floats, room: Ints, layers: int, count: int) -> float:
    """The least slowest stage with ``count`` nodes, each with a layer; infinite if they can't hold them."""
    return _first_enough(_stages_s(s_per_layer, room, layers), s_per_layer, room, layers, count)


def _stages_s(s_per_layer: Floats, room: Ints, layers: int) -> Floats:
    """Every time that some node can take for some number of layers, ascending."""
    numbers = np.arange(1, layers + 1)
    stages: Floats = np.unique((s_per_layer[:, None] * numbers)[numbers <= room[:, None]])
    return stages


def _first_enough(stages: Floats, s_per_layer: Floats, room: Ints, layers: int, count: int) -> float:
    low, high = 0, len(stages)
    while low < high:
        middle = (low + high) // 2
        takes = np.sort(_layers_within(stages[middle], s_per_layer, room))[::-1][:count]
        if len(takes) == count and takes[-1] > 0 and takes.sum() >= layers:
            high = middle
        else:
            low = middle + 1
    return float(stages[low]) if low < len(stages) else float("inf")


def _slowest_stages_with_s(
    chosen: tuple[Floats, Ints], newcomers: tuple[Floats, Ints], layers: int
) -> Floats:
    """The least slowest stage with each of X newcomers in the place of one of the chosen: (X,), or infinite.

    ``chosen`` and ``newcomers`` are speeds and rooms. A newcomer takes r layers, for the r that is best.
    """
    others = len(chosen[0]) - 1
    stages = _stages_s(*chosen, layers)
    s_per_layer, room = newcomers
    best = np.full(len(room), np.inf)
    for takes in range(1, layers - others + 1):
        if others:
            rest_s = _first_enough(stages, *chosen, layers - takes, others)
        else:
            rest_s = 0.0 if takes == layers else np.inf
        best = np.where(takes <= room, np.minimum(best, np.maximum(rest_s, takes * s_per_layer)), best)
    return best
