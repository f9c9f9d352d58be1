"""The planner's optimum by trying everything: every subset, every order, every cut. For a few nodes only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sharedllm.nodes.planner import Links, ModelShape, NodeOffer

Order = tuple[NodeOffer, ...]


def hop_s(a: NodeOffer, b: NodeOffer | None, shape: ModelShape, links: Links) -> float:
    """One hop between two nodes, or a node and the primary (None): rtt/2 + bytes/bandwidth + software."""
    other = "primary" if b is None else b.id
    measured = [a.rtt_s[other]] if other in a.rtt_s else []
    if b is not None and a.id in b.rtt_s:
        measured.append(b.rtt_s[a.id])
    near = b is not None and a.host != "" and a.host == b.host
    rtt_s = max(measured, default=links.same_host_rtt_s if near else links.default_rtt_s)
    rate = min(a.bandwidth_bytes_per_s, math.inf if b is None else b.bandwidth_bytes_per_s)
    return rtt_s / 2 + (0.0 if near else shape.activation_bytes / rate) + links.software_s


def ring_s(order: Order, shape: ModelShape, links: Links) -> float:
    """All hops of the ring through ``order``, from the primary and back."""
    inner = sum(hop_s(a, b, shape, links) for a, b in itertools.pairwise(order))
    return inner + hop_s(order[0], None, shape, links) + hop_s(order[-1], None, shape, links)


@cache
def compositions(layers: int, parts: int) -> NDArray[np.int64]:
    """Every way to write ``layers`` as a sum of ``parts`` numbers ≥ 1: (ways, parts)."""
    ways = [np.diff([0, *cut, layers]) for cut in itertools.combinations(range(1, layers), parts - 1)]
    return np.array(ways, dtype=np.int64).reshape(-1, parts)


def orders(offers: Sequence[NodeOffer], sizes: Sequence[int]) -> Iterator[Order]:
    """Every ordered choice of so many of ``offers``."""
    for size in sizes:
        yield from itertools.permutations(offers, size)


def subsequences(offers: Sequence[NodeOffer]) -> Iterator[Order]:
    """Every choice of ``offers`` that keeps their order."""
    for size in range(1, len(offers) + 1):
        yield from itertools.combinations(offers, size)


def least_token_s(choices: Iterator[Order], shape: ModelShape, links: Links) -> float:
    """The least time per token over ``choices`` and all cuts; infinite if nothing fits."""
    return min(
        (min(token for _, token in _figures(order, shape, links)) for order in choices), default=math.inf
    )


def least_stage_then_token(choices: Iterator[Order], shape: ModelShape, links: Links) -> tuple[float, float]:
    """The least slowest stage, and the least time per token among those that reach it (to 1e-9)."""
    both = [pair for order in choices for pair in _figures(order, shape, links)]
    stage_s = min((stage for stage, _ in both), default=math.inf)
    if stage_s == math.inf:
        return math.inf, math.inf
    return stage_s, min(token for stage, token in both if stage <= stage_s * (1 + 1e-9))


def _figures(order: Order, shape: ModelShape, links: Links) -> list[tuple[float, float]]:
    if len(order) > shape.layers:
        return [(math.inf, math.inf)]
    numbers = compositions(shape.layers, len(order))
    room = [offer.memory_bytes // (shape.layer_bytes + shape.cache_bytes_per_layer) for offer in order]
    numbers = numbers[(numbers <= np.array(room)).all(1)]
    if not len(numbers):
        return [(math.inf, math.inf)]
    compute = numbers * np.array([offer.s_per_layer for offer in order])
    tokens = compute.sum(1) + ring_s(order, shape, links)
    return list(zip(compute.max(1).tolist(), tokens.tolist(), strict=True))
