"""What the planner says to people: why a node is left out, and what is missing when the model has no home."""

from __future__ import annotations

from collections.abc import Sequence

from sharedllm.nodes.planner.offers import ModelShape, NodeOffer
from sharedllm.nodes.planner.pipeline import NoHome

__all__ = [
    "banned",
    "full",
    "no_home",
    "no_room_in_turn",
    "only_so_many",
    "slower",
    "too_few_allowed",
    "uneven",
    "untrusted",
]


def banned() -> str:
    """Of a node that failed, or that the caller excludes."""
    return "left out: it is banned from this pipeline for now"


def untrusted() -> str:
    """Of a node that the person's pin does not name."""
    return "left out: this pipeline is pinned to trusted nodes, and it is not one of them"


def full(offer: NodeOffer, shape: ModelShape) -> str:
    """Of a node without room for a layer."""
    return (
        f"left out: it has {_memory(offer.memory_bytes)} free, and one layer with its cache "
        f"needs {_memory(shape.bytes_per_layer)}"
    )


def slower(offer: NodeOffer, with_s: float, now_s: float) -> str:
    """Of a node with which a token would take longer."""
    with_ms, now_ms = _apart(with_s, now_s)
    if with_ms == now_ms:
        return f"left out: with {offer.label} the token would take {now_ms} ms, as it does without"
    return f"left out: with {offer.label} the token would take {with_ms} ms instead of {now_ms} ms"


def uneven(offer: NodeOffer, count: int, with_s: float, now_s: float) -> str:
    """Of a node in a pipeline over an exact number, with which the slowest stage would be slower."""
    asked = f"left out: {_count(count, 'worker was', 'workers were')} asked for, and with {offer.label}"
    with_ms, now_ms = _apart(with_s, now_s)
    if with_ms == now_ms:
        return f"{asked} in place of one of them nothing would be faster"
    return f"{asked} in place of one of them the slowest stage would take {with_ms} ms instead of {now_ms} ms"


def no_room_in_turn(offer: NodeOffer, count: int) -> str:
    """Of a node that holds too little for a pipeline over so few."""
    return (
        f"left out: {_count(count, 'worker was', 'workers were')} asked for, and with {offer.label} "
        "in place of one of them the model would not fit"
    )


def only_so_many(asked: int, used: int, layers: int) -> str:
    """Of a pipeline over fewer workers than were asked for."""
    why = "the model has no more layers" if used == layers else "no more can take part"
    return f"{_count(asked, 'worker was', 'workers were')} asked for; {used} used, because {why}"


def no_home(held: int, nodes: int, shape: ModelShape, ignored: Sequence[str]) -> NoHome:
    """When all nodes together hold ``held`` layers, too few; ``ignored`` says who was not counted."""
    missing = (shape.layers - held) * shape.bytes_per_layer
    at_hand = f"the {_count(nodes, 'node', 'nodes')} at hand {'holds' if nodes == 1 else 'hold'} {held}"
    have = at_hand if nodes else "no node is at hand"
    aside = f" (not counted: {', '.join(ignored)})" if ignored else ""
    return NoHome(
        held,
        shape.layers,
        missing,
        f"{_layers(held, shape.layers)} no home: {have}{aside}, and {_memory(missing)} of memory is missing. "
        "Join a machine with that much free, raise a node's share, or ask for a shorter context.",
    )


def too_few_allowed(held: int, count: int, shape: ModelShape) -> NoHome:
    """When the ``count`` largest nodes hold ``held`` layers, too few, though more nodes would do."""
    missing = (shape.layers - held) * shape.bytes_per_layer
    return NoHome(
        held,
        shape.layers,
        missing,
        f"{_layers(held, shape.layers)} no home: {_count(count, 'worker was', 'workers were')} asked for, "
        f"the largest hold {held}, and {_memory(missing)} of memory is missing. Ask for more workers, or "
        "let the planner choose how many.",
    )


def _layers(start: int, layers: int) -> str:
    if start == layers - 1:
        return f"Layer {start} of 0–{layers - 1} has"
    return f"Layers {start}–{layers - 1} of 0–{layers - 1} have"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _memory(size: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}" if size < 10 * unit else f"{size / unit:.0f} {name}"
    return f"{size:.0f} bytes"


def _apart(a_s: float, b_s: float) -> tuple[str, str]:
    """Both in ms, with as few decimals as tell them apart, and at least two figures each."""
    least = 0 if min(a_s, b_s) >= 0.01 else 1 if min(a_s, b_s) >= 0.001 else 2
    for decimals in range(least, least + 3):
        pair = f"{1000 * a_s:.{decimals}f}", f"{1000 * b_s:.{decimals}f}"
        if pair[0] != pair[1]:
            break
    return pair
