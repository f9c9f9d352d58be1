"""All that a coordinator knows, and everything that ``sharedllm status`` shows of it, as one JSON object.

A measured speed is shown as measured and an estimate as one. What a pipeline could reach (its floor: compute
and links, without software's own time) stands beside what it reaches.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, Row, text
from sqlalchemy.exc import SQLAlchemyError

from sharedllm import __version__
from sharedllm.nodes.coordinator.admission import Admission
from sharedllm.nodes.coordinator.experience import Experience
from sharedllm.nodes.coordinator.offers import reading_speeds, seconds_per_layer
from sharedllm.nodes.coordinator.pipelines import Pipelines
from sharedllm.nodes.coordinator.registry import LEASE_S, Node, Registry, UnknownNode
from sharedllm.nodes.coordinator.schemas import ModelRequest
from sharedllm.nodes.identity import Authority
from sharedllm.nodes.operations import metrics

__all__ = ["Coordinator"]

_ORDER = {"primary": 0, "worker": 1, "operator": 2}


class Coordinator:
    """All that a coordinator knows, on one database.

    ``relay`` is the node id and port of the relay in this process, if there is one; ``gossip`` likewise.
    """

    def __init__(
        self,
        engine: Engine,
        authority: Authority,
        *,
        clock: Callable[[], float] = time.time,
        lease_s: float = LEASE_S,
    ) -> None:
        self.engine = engine
        self.registry = Registry(engine, clock=clock, lease_s=lease_s)
        self.admission = Admission(engine, self.registry, authority)
        self.experience = Experience(engine, clock=clock, lease_s=lease_s)
        self.pipelines = Pipelines(engine, self.registry, self.experience, authority)
        self.relay: tuple[str, int] | None = None
        self.gossip: tuple[str, int] | None = None
        self._were_live: set[str] = set()

    def ready(self) -> tuple[bool, str]:
        """Whether requests can be answered, and a sentence about it."""
        try:
            with self.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError as error:
            return False, f"The database does not answer ({type(error).__name__})."
        return True, "The directory is open."

    def expel(self, node_id: str) -> None:
        """Exclude a node that its fellow members expelled, if it ever registered here."""
        with contextlib.suppress(UnknownNode):
            self.registry.revoke(node_id)

    def collect(self) -> None:
        """Bring the gauges up to date, and count leases that ran out since the last time."""
        live = self.registry.live()
        gone = self._were_live - {node.id for node in live}
        self._were_live = {node.id for node in live}
        left = {node.id for node in self.registry.members() if not node.lease_until_s}
        metrics.leases_expired.inc(len(gone - left))
        for role in ("primary", "worker"):
            metrics.nodes.labels(role).set(sum(node.role == role for node in live))
        metrics.pipelines.set(len(self.pipelines.in_use()))

    def status(self) -> dict[str, Any]:
        """The federation now: ``nodes`` by role and name, ``pipelines`` in use, oldest first.

        Times in seconds, memory in bytes; ``null`` where nothing was measured or reported.
        """
        registry, in_use = self.registry, self.pipelines.in_use()
        members = registry.members()
        banned, paused = self.experience.banned(members), registry.paused()
        nodes = [
            _node(node, registry, self.experience, in_use, banned.get(node.id), node.id in paused)
            for node in members
        ]
        nodes.sort(key=lambda node: (_ORDER.get(node["role"], 3), node["name"], node["id"]))
        return {
            "version": __version__,
            "time_s": registry.clock(),
            "lease_s": registry.lease_s,
            "nodes": nodes,
            "pipelines": [_pipeline(row, registry) for row in in_use],
            "revoked": registry.revoked(),
        }


def _node(
    node: Node,
    registry: Registry,
    experience: Experience,
    in_use: list[Row[Any]],
    banned: str | None,
    paused: bool,
) -> dict[str, Any]:
    report = node.report
    left_s = max(0.0, node.lease_until_s - registry.clock())
    state, sentence = _state(node, left_s, banned, paused)
    told = report.model_dump(exclude={"name", "role", "rtt_s", "started"}) if report is not None else {}
    return {
        **told,
        "id": node.id,
        "short": node.id[:8],
        "name": node.name,
        "role": node.role,
        "state": state,
        "sentence": sentence,
        "lease_left_s": round(left_s, 3),
        "seen_s": node.seen_s,
        "up_s": registry.clock() - report.started if report is not None and left_s else None,
        "spans": _spans(node, experience, in_use),
    }


def _spans(node: Node, experience: Experience, in_use: list[Row[Any]]) -> list[dict[str, Any]]:
    spans = []
    for row in in_use:
        for worker, start, stop in row.plan["spans"]:
            if worker != node.id:
                continue
            model = ModelRequest.model_validate(row.plan["model"])
            measured = experience.measured(model.hash)
            spans.append(
                {
                    "pipeline": row.id,
                    "model": model.name,
                    "start": start,
                    "stop": stop,
                    "s_per_layer": seconds_per_layer(node, model, measured, reading_speeds([node])),
                    "measured": node.id in measured,
                }
            )
    return spans


def _state(node: Node, left_s: float, banned: str | None, paused: bool) -> tuple[str, str]:
    if node.role == "operator":
        return "member", "uses the federation and serves nothing"
    if node.report is None:
        return "joined", "has joined and not been started yet"
    if not left_s:
        return "gone", "has not been heard of since its lease ran out"
    if node.report.draining:
        return "draining", "finishes what it serves and takes nothing new"
    if paused:
        return "paused", "is paused"
    if banned is not None:
        return "banned", banned
    return "up", ""


def _pipeline(row: Row[Any], registry: Registry) -> dict[str, Any]:
    plan, measured = row.plan, row.measured
    token_s, hops_ms = measured.get("token_s"), measured.get("hops_ms", {})
    floor_s, speeds = measured.get("floor_s", plan["floor_s"]), measured.get("speeds", {})
    spans = [
        {
            "node": worker,
            "name": registry.name(worker),
            "start": start,
            "stop": stop,
            "compute_ms": 1_000 * (speeds[worker] * (stop - start) if worker in speeds else compute_s),
            "hop_ms": hops_ms.get(worker, 1_000 * hop_s),
        }
        for (worker, start, stop), compute_s, hop_s in zip(
            plan["spans"], plan["compute_s"], plan["hop_s"], strict=True
        )
    ]
    return {
        "id": row.id,
        "primary": row.primary,
        "primary_name": registry.name(row.primary),
        "model": plan["model"]["name"],
        "hash": plan["model"]["hash"],
        "epoch": row.epoch,
        "age_s": registry.clock() - row.created_s,
        "spans": spans,
        "predicted_token_s": plan["token_s"],
        "floor_s": floor_s,
        "token_s": token_s,
        "tokens_per_s": 1 / token_s if token_s else None,
        "floor_percent": 100 * floor_s / token_s if token_s else None,
        "tokens": measured.get("tokens", 0),
        "left_out": plan["left_out"],
        "note": plan["note"],
    }
