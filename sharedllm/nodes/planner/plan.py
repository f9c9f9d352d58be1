"""``plan``: from what nodes offer to the pipeline for one model and one primary. Pure, and deterministic.

``T = Σ compute + Σ hops`` of one token around the ring primary → workers → primary is what counts for one
stream, so a model that fits one machine is split only if the faster parts elsewhere are worth their hops, and
nodes that would slow the token are left out with a sentence that has the numbers.

- cuts and subset for a given order: exact (``along``)
- subset and order: exact up to 10 usable nodes, a heuristic beyond (``search``)
- ``spread``: the least possible slowest stage is exact (``spread``); within it, the least T as above

Measured by ``python -m tests.benchmarks.planner``, as token time over the least there is. In 2,557
cases of 2–6 nodes beside brute force the plan is always the optimum; the heuristic's rounds alone are
in 99.9 %, at worst 1.023. In 415 cases of 11–12 nodes beside the exact search the heuristic is always
the optimum; its rounds alone in 98.8 %, at worst 1.045. 1,000 nodes × 80 layers take 13–50 ms on a busy
machine where the largest node holds 30 layers, and up to 92 ms where it holds 4, so that 20 and more
workers make a pipeline.

*Covered*: spans cover [0, L) once and fit in memory; the order of the offers does not matter, ids break ties;
up to 10 usable nodes one more node never makes the prediction worse (beyond: 1 of 889 cases, by 0.01 %).
*Not covered*: the time that the primary itself takes, queues behind other pipelines (the offers' speeds are
already divided by load), layers of unequal size, and how good the measured figures are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from sharedllm.nodes.planner import sentences
from sharedllm.nodes.planner.along import best_along
from sharedllm.nodes.planner.choice import choose
from sharedllm.nodes.planner.offers import BadFigures, Links, ModelShape, NodeOffer, Objective
from sharedllm.nodes.planner.pipeline import NoHome, Plan
from sharedllm.nodes.planner.problem import Problem, room, square
from sharedllm.nodes.planner.spread import spread

__all__ = ["cuts", "plan", "spares"]

_FASTEST = Objective()
_LINKS = Links()


def plan(
    offers: Sequence[NodeOffer], shape: ModelShape, objective: Objective = _FASTEST, links: Links = _LINKS
) -> Plan | NoHome:
    """Give the pipeline for ``shape`` over ``offers``, or which layers lack a home and how much memory.

    Raises ``BadFigures`` for two offers of one node.
    """
    usable, away = _sorted_out(offers, shape, objective)
    rooms = np.array([room(offer, shape) for offer in usable], dtype=np.int64)
    if rooms.sum() < shape.layers:
        return sentences.no_home(int(rooms.sum()), len(usable), shape, _ignored(away))
    if objective.kind == "spread":
        return spread(usable, rooms, shape, objective.nodes, links, _why_away(away, shape))
    choice = choose(usable, rooms, shape, links, None)
    left = _why_away(away, shape)
    for node, with_s in zip(choice.idle, choice.changes.token_s.tolist(), strict=True):
        with_s = max(with_s, choice.token_s)
        left[usable[node].id] = sentences.slower(usable[node], with_s, choice.token_s)
    return choice.as_plan(usable, links, left)


def spares(
    offers: Sequence[NodeOffer], shape: ModelShape, objective: Objective, plan_: Plan, links: Links = _LINKS
) -> dict[str, Plan | NoHome]:
    """Give for every node of ``plan_`` the plan without it, ready for the moment when it is lost."""
    lost = (span.node for span in plan_.spans)
    return {
        node: plan(offers, shape, replace(objective, banned=objective.banned | {node}), links)
        for node in lost
    }


def cuts(ordered: Sequence[NodeOffer], shape: ModelShape, links: Links = _LINKS) -> tuple[int, ...] | NoHome:
    """Give the layers of each node, in this order, that make a token fastest; 0 for one that is passed over.

    Exact. Trust and bans are the caller's business here. Raises ``BadFigures`` for two offers of one node.
    """
    _check_ids(ordered)
    rooms = np.array([room(offer, shape) for offer in ordered], dtype=np.int64)
    s_per_layer = np.array([offer.s_per_layer for offer in ordered])
    problem = Problem(s_per_layer, rooms, square(ordered, shape, links), shape.layers)
    chain = best_along(problem, range(len(ordered)))
    if chain is None:
        return sentences.no_home(int(rooms.sum()), len(ordered), shape, [])
    layers = dict(chain)
    return tuple(layers.get(node, 0) for node in range(len(ordered)))


def _check_ids(offers: Sequence[NodeOffer]) -> None:
    ids = sorted(offer.id for offer in offers)
    for one, other in pairwise(ids):
        if one == other:
            raise BadFigures(f"Node {one} makes two offers; give one for each node.")


def _sorted_out(
    offers: Sequence[NodeOffer], shape: ModelShape, objective: Objective
) -> tuple[list[NodeOffer], list[tuple[NodeOffer, str]]]:
    """Those that may and can hold a layer, by id; and the others, with "banned", "not trusted" or "full"."""
    _check_ids(offers)
    usable, away = [], []
    for offer in sorted(offers, key=lambda offer: offer.id):
        if offer.id in objective.banned:
            away.append((offer, "banned"))
        elif not offer.trusted:
            away.append((offer, "not trusted"))
        elif room(offer, shape) < 1:
            away.append((offer, "full"))
        else:
            usable.append(offer)
    return usable, away


def _why_away(away: list[tuple[NodeOffer, str]], shape: ModelShape) -> dict[str, str]:
    say = {"banned": sentences.banned(), "not trusted": sentences.untrusted()}
    return {offer.id: say.get(why) or sentences.full(offer, shape) for offer, why in away}


def _ignored(away: list[tuple[NodeOffer, str]]) -> list[str]:
    counts = {why: sum(reason == why for _, reason in away) for why in ("banned", "not trusted", "full")}
    return [f"{number} {why}" for why, number in counts.items() if number]
