"""What each worker can offer to one primary now (speed, free memory, links), and who is not asked. Pure.

Speed: seconds per layer as measured; before anything was, ``layer_bytes / read_bytes_per_s / share``, because
decoding one row reads every weight once. Either is multiplied by one plus the number of other pipelines that
the worker serves, so that two primaries prefer different workers. Memory: all that the worker gives, less
what other pipelines were promised.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sharedllm.nodes.coordinator.registry import Node
from sharedllm.nodes.coordinator.schemas import ModelRequest, PipelineRequest
from sharedllm.nodes.planner import (
    PRIMARY,
    Links,
    ModelShape,
    NodeOffer,
    NoHome,
    Objective,
    Plan,
    plan,
    spares,
)

__all__ = ["Placed", "Promise", "not_asked", "place", "promised", "reading_speeds", "seconds_per_layer"]

_CAUTIOUS_READ_BYTES_PER_S = 1e9
_CAUTIOUS_BANDWIDTH_BYTES_PER_S = 12.5e6


@dataclasses.dataclass(frozen=True)
class Promise:
    """A span that a pipeline in use has on a worker."""

    model: str
    layers: frozenset[int]
    layer_bytes: int
    cache_bytes_per_layer: int


def reading_speeds(workers: Iterable[Node]) -> dict[str, float]:
    """How fast each machine reads its memory, bytes/s, by name: what its quickest worker found."""
    found: dict[str, float] = {}
    for node in workers:
        if node.report is not None and node.report.host:
            found[node.report.host] = max(found.get(node.report.host, 0.0), node.report.read_bytes_per_s)
    return found


def seconds_per_layer(
    node: Node, model: ModelRequest, measured: Mapping[str, float], fastest: Mapping[str, float]
) -> float:
    """A worker's time for one layer and row, measured or estimated, without any other load.

    ``fastest`` is how fast each machine reads, by what its quickest worker found: they share its memory.
    """
    if node.id in measured:
        return measured[node.id]
    report = node.report
    read = fastest.get(report.host, report.read_bytes_per_s) if report is not None else 0.0
    share = report.share if report is not None else 1.0
    return model.layer_bytes / (read or _CAUTIOUS_READ_BYTES_PER_S) / share


@dataclasses.dataclass(frozen=True)
class Placed:
    """A plan, or why there is none, and by node the plan without it."""

    found: Plan | NoHome
    spares: dict[str, Plan]


def not_asked(
    workers: Iterable[Node], model: ModelRequest, *, paused: set[str], banned: Mapping[str, str]
) -> dict[str, str]:
    """Why some of the live ``workers`` are not asked, by id; ``banned`` has its sentences ready."""
    reasons = {}
    for node in workers:
        if node.report is None or node.report.draining:
            reasons[node.id] = "it is leaving, finishes what it serves and takes nothing new"
        elif node.id in paused:
            reasons[node.id] = "it is paused"
        elif node.report.models is not None and model.hash not in node.report.models:
            reasons[node.id] = f"it has no weights of {model.name} ({model.hash[:8]}) in its store"
        elif node.id in banned:
            reasons[node.id] = banned[node.id]
    return reasons


def promised(plans: Iterable[Mapping[str, Any]]) -> dict[str, list[Promise]]:
    """What pipelines in use hold on each worker, from their plans as they are stored."""
    promises: dict[str, list[Promise]] = {}
    for stored in plans:
        model = ModelRequest.model_validate(stored["model"])
        for worker, start, stop in stored["spans"]:
            promises.setdefault(worker, []).append(_promise(model, start, stop))
    return promises


def place(
    nodes: Sequence[Node],
    primary: Node | None,
    request: PipelineRequest,
    *,
    measured: Mapping[str, float],
    promises: Mapping[str, Sequence[Promise]],
) -> Placed:
    """Plan as if layers held for others were free; if that promises too much, as if none were."""
    model, wanted = request.model, request.objective
    shape = ModelShape(**model.model_dump(exclude={"name"}))
    objective = Objective(kind=wanted.kind, nodes=wanted.nodes, banned=frozenset(request.banned))
    memory = {node.id: node.report.memory_bytes for node in nodes if node.report is not None}
    fastest = reading_speeds(nodes)
    for shared in (True, False):
        offers = [
            _offer(
                node,
                primary,
                model,
                s_per_layer=seconds_per_layer(node, model, measured, fastest),
                promises=promises.get(node.id, ()),
                trusted=request.trusted is None or node.id in request.trusted,
                shared=shared,
            )
            for node in nodes
        ]
        found = plan(offers, shape, objective)
        if isinstance(found, NoHome):
            break
        if _holds(found, model, memory, promises):
            without = spares(offers, shape, objective, found)
            kept = {
                id: spare
                for id, spare in without.items()
                if isinstance(spare, Plan) and _holds(spare, model, memory, promises)
            }
            return Placed(found, kept)
    return Placed(found, {})


def _offer(
    node: Node,
    primary: Node | None,
    model: ModelRequest,
    *,
    s_per_layer: float,
    promises: Sequence[Promise],
    trusted: bool,
    shared: bool,
) -> NodeOffer:
    """One worker's offer; ``shared``: this model's layers that it holds for others cost no memory again."""
    report = node.report
    assert report is not None, "only live nodes are asked for offers"
    taken = _bytes([p for p in promises if not (shared and p.model == model.hash)])
    if shared:
        taken += sum(len(p.layers) * p.cache_bytes_per_layer for p in promises if p.model == model.hash)
    rtt_s = dict(report.rtt_s)
    if primary is not None and primary.report is not None:
        known = [rtt_s.pop(primary.id, None), primary.report.rtt_s.get(node.id)]
        both = [value for value in known if value is not None]
        if both:
            rtt_s[PRIMARY] = max(both)
        elif report.host and report.host == primary.report.host:
            rtt_s[PRIMARY] = Links().same_host_rtt_s
    return NodeOffer(
        id=node.id,
        name=node.name,
        memory_bytes=max(0, report.memory_bytes - taken),
        s_per_layer=s_per_layer * (1 + len(promises)),
        host=report.host,
        rtt_s=rtt_s,
        bandwidth_bytes_per_s=report.bandwidth_bytes_per_s or _CAUTIOUS_BANDWIDTH_BYTES_PER_S,
        trusted=trusted,
    )


def _holds(
    found: Plan,
    model: ModelRequest,
    memory_bytes: Mapping[str, int],
    promises: Mapping[str, Sequence[Promise]],
) -> bool:
    """Whether every worker's memory holds the plan beside what it promised, shared layers counted once."""
    for span in found.spans:
        promise = _promise(model, span.start, span.stop)
        if _bytes([*promises.get(span.node, ()), promise]) > memory_bytes[span.node]:
            return False
    return True


def _promise(model: ModelRequest, start: int, stop: int) -> Promise:
    return Promise(model.hash, frozenset(range(start, stop)), model.layer_bytes, model.cache_bytes_per_layer)


def _bytes(promises: Iterable[Promise]) -> int:
    """Memory for ``promises``: caches for each, weights once for each layer of a model."""
    caches, weights = 0, dict[tuple[str, int], int]()
    for promise in promises:
        caches += len(promise.layers) * promise.cache_bytes_per_layer
        weights.update({(promise.model, layer): promise.layer_bytes for layer in promise.layers})
    return caches + sum(weights.values())
