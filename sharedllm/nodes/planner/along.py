"""The best plan along one order of nodes, exactly: which of them take part, and where the layers are cut.

Dynamic programming over (last node used, layers placed so far). Any node may be passed over, so the subset is
chosen exactly too, among those that keep the order. O(n²·L) additions for n nodes and L layers; times the
number of nodes where an exact number is asked for. Where all hops cost ``a_i + a_j`` (every node's own way to
one common middle, as when nothing is measured and bandwidths are equal) no order is better than another, and
this is the optimum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sharedllm.nodes.planner.problem import Chain, Floats, Problem

__all__ = ["best_along", "fill", "taken"]


def best_along(problem: Problem, order: Sequence[int]) -> Chain | None:
    """Give the fastest chain whose nodes keep the order of ``order``; None if they can't hold the model."""
    if not order:
        return None
    counts, layers = problem.count or 1, problem.layers
    ring = np.array([problem.nodes, *order])
    hop = problem.hop_s[np.ix_(ring, ring)]
    reached = np.full((len(order), counts, layers + 1), np.inf)  # time until that many layers are done
    for place, node in enumerate(order):
        # Of a number of nodes, so many can be used by now, and so many must be for the rest to suffice.
        used = range(max(0, counts - len(order) + place), min(place + 1, counts))
        if problem.count is None:
            used = range(1)
        arrived = _arrived(reached[:place], hop[: place + 1, place + 1], used, problem.count is not None)
        room, speed = int(problem.room[node]), float(problem.s_per_layer[node])
        reached[place, used.start : used.stop] = fill(arrived, speed, room)
    totals = reached[:, -1, layers] + hop[1:, 0]
    place = int(totals.argmin())
    return None if np.isinf(totals[place]) else _walk_back(problem, order, reached, hop, place)


def fill(arrived: Floats, s_per_layer: float, room: int) -> Floats:
    """Time until l layers are done when this node takes 1 to ``room`` of them: (…, L + 1) from (…, L + 1).

    ``filled[l] = min over n of arrived[l − n] + n · s_per_layer``, as a sliding minimum by doubling.
    """
    work = s_per_layer * np.arange(arrived.shape[-1])
    lowest = arrived - work
    width = 1
    if room >= arrived.shape[-1] - 1:
        lowest = np.minimum.accumulate(lowest, axis=-1)
        width = room
    while width < room:
        step = min(width, room - width)
        lowest[..., step:] = np.minimum(lowest[..., step:], lowest[..., :-step])
        width += step
    filled = np.full_like(arrived, np.inf)
    if room:
        filled[..., 1:] = lowest[..., :-1] + work[1:]
    return filled


def taken(arrived: Floats, s_per_layer: float, room: int, layers: int) -> int:
    """How many layers the node took when ``layers`` were done behind it: ``fill``'s minimum, found again."""
    numbers = np.arange(1, min(room, layers) + 1)
    return int(numbers[(arrived[layers - numbers] + numbers * s_per_layer).argmin()])


def _arrived(reached: Floats, hop_s: Floats, used: range, counted: bool) -> Floats:
    """Time until work starts behind those ``reached``, by nodes ``used`` and layers done: (used, L + 1).

    ``hop_s`` leads here from the primary, then from each of them.
    """
    arrived = np.full((len(used), reached.shape[2]), np.inf)
    if len(reached):
        skip = counted and not used.start  # nobody is behind the first
        before = reached[:, used.start + skip - counted : used.stop - counted]
        arrived[skip:] = (before + hop_s[1:, None, None]).min(0)
    if not used.start:
        arrived[0, 0] = hop_s[0]
    return arrived


def _walk_back(problem: Problem, order: Sequence[int], reached: Floats, hop_s: Floats, place: int) -> Chain:
    chain: list[tuple[int, int]] = []
    counted = problem.count is not None
    count, layers = reached.shape[1] - 1, problem.layers
    while True:
        node = order[place]
        hop = hop_s[: place + 1, place + 1]
        arrived = _arrived(reached[:place], hop, range(count, count + 1), counted)[0]
        took = taken(arrived, float(problem.s_per_layer[node]), int(problem.room[node]), layers)
        chain.append((node, took))
        layers -= took
        if not layers:
            return tuple(reversed(chain))
        count -= counted
        place = int((reached[:place, count, layers] + hop[1:]).argmin())
