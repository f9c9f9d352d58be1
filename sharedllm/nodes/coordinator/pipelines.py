"""From a primary's wish to a pipeline: the live workers' offers, a plan, a ticket for every hop, and spares.

A primary has one pipeline in use for each model; its spares (the plan without one of its workers) are handed
out with it, tickets included, so that failing over needs no coordinator. A spare comes into use with its
first report. Pipelines count as load and memory while their primary's lease holds.

*Covered*: two primaries that ask at the same moment (one after the other); a restart keeps pipelines, epochs
and what was measured. *Not covered*: a worker that promises more memory than it has; its engine refuses, the
primary reports it, and the next plan is without it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, insert, select, update

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.coordinator.database import pipelines
from sharedllm.nodes.coordinator.experience import Experience
from sharedllm.nodes.coordinator.offers import not_asked, place, promised
from sharedllm.nodes.coordinator.registry import Node, Registry
from sharedllm.nodes.coordinator.schemas import ModelRequest, PipelineReport, PipelineRequest
from sharedllm.nodes.errors import NoPipeline
from sharedllm.nodes.identity import Authority, Ticket, issue
from sharedllm.nodes.operations import metrics
from sharedllm.nodes.planner import NoHome, Plan, PlannedSpan

__all__ = ["TICKET_LIFE_S", "LacksHome", "Pipelines", "UnknownPipeline"]

TICKET_LIFE_S = 600.0
_FORGOTTEN_AFTER_S = 24 * 3_600.0


class UnknownPipeline(SharedLLMError):
    """No such pipeline belongs to the primary that speaks of it, or the worker is not in it."""


class LacksHome(NoPipeline):
    """The live workers can't hold the model: ``layers`` [start, stop) lack a home of ``missing_bytes``."""

    def __init__(self, found: NoHome, left_out: Sequence[Sequence[str]]) -> None:
        others = "".join(f" Left out: {name}, because {why}." for name, why in left_out[:4])
        super().__init__(found.sentence + others)
        self.layers, self.missing_bytes = (found.start, found.stop), found.missing_bytes
        self.left_out = [list(pair) for pair in left_out]


class Pipelines:
    """Opens, follows and closes the pipelines of a federation. Safe for many threads."""

    def __init__(
        self, engine: Engine, registry: Registry, experience: Experience, authority: Authority
    ) -> None:
        self._engine, self._registry, self._experience = engine, registry, experience
        self._authority = authority
        self._one_at_a_time = threading.Lock()

    def open(self, primary: str, request: PipelineRequest) -> dict[str, Any]:
        """Plan a pipeline for ``primary``, with spares and every ticket. Raises ``LacksHome``."""
        began_s = time.perf_counter()
        with self._one_at_a_time:
            workers = self._registry.live("worker")
            reasons = not_asked(
                workers,
                request.model,
                paused=self._registry.paused(),
                banned=self._experience.banned(workers),
            )
            others = [row.plan for row in self.in_use() if not _superseded(row, primary, request)]
            placed = place(
                [node for node in workers if node.id not in reasons],
                {node.id: node for node in self._registry.live("primary")}.get(primary),
                request,
                measured=self._experience.measured(request.model.hash),
                promises=promised(others),
            )
            metrics.plan_seconds.observe(time.perf_counter() - began_s)
            if isinstance(placed.found, NoHome):
                metrics.plans.labels("no_home").inc()
                raise LacksHome(placed.found, self._named(reasons.items()))
            metrics.plans.labels("planned").inc()
            if request.dry:
                spans = [[span.node, span.start, span.stop] for span in placed.found.spans]
                return {"spans": spans, "token_s": placed.found.token_s, "spared": sorted(placed.spares)}
            by_id = {node.id: node for node in workers}
            return self._enter(primary, request, placed.found, placed.spares, reasons, by_id)

    def report(self, primary: str, pipeline: str, report: PipelineReport) -> None:
        """Take in how a pipeline does: speeds, failures, tokens. Raises ``UnknownPipeline``."""
        row = self._owned(primary, pipeline)
        model, workers = row.plan["model"]["hash"], {span[0] for span in row.plan["spans"]}
        if report.worker is not None and report.worker not in workers:
            raise UnknownPipeline(
                f"Worker {report.worker} is not in pipeline {pipeline}; report one that is."
            )
        self._use(primary, row, report)
        measured = {worker: speed for worker, speed in report.speeds.items() if worker in workers}
        slow = report.worker if report.kind == "slow" else None
        self._experience.learn(model, measured, at_once=slow)
        if report.kind == "ok":
            self._experience.forgive([report.worker] if report.worker is not None else workers)
        elif report.kind != "slow" and report.worker is not None:
            node = {node.id: node for node in self._registry.members()}.get(report.worker)
            started_s = node.report.started if node is not None and node.report is not None else 0.0
            self._experience.ban(report.worker, report.kind, report.detail, started_s)

    def close(self, primary: str, pipeline: str) -> None:
        """End a pipeline and its spares. Raises ``UnknownPipeline``."""
        row = self._owned(primary, pipeline)
        with self._engine.begin() as connection:
            connection.execute(delete(pipelines).where(pipelines.c.family == row.family))

    def in_use(self) -> list[Row[Any]]:
        """The active pipelines of primaries whose lease holds, oldest first."""
        live = {node.id for node in self._registry.live("primary")}
        chosen = select(pipelines).where(pipelines.c.active).order_by(pipelines.c.created_s, pipelines.c.id)
        with self._engine.connect() as connection:
            return [row for row in connection.execute(chosen) if row.primary in live]

    def _named(self, reasons: Iterable[tuple[str, str]]) -> list[list[str]]:
        """Names and sentences, which stand after the words "left out"."""
        return [[self._registry.name(node), why.removeprefix("left out: ")] for node, why in reasons]

    def _enter(
        self,
        primary: str,
        request: PipelineRequest,
        found: Plan,
        without: Mapping[str, Plan],
        reasons: Mapping[str, str],
        nodes: Mapping[str, Node],
    ) -> dict[str, Any]:
        """Write the pipeline and its spares in place of what they supersede, and return the reply."""
        now, family = self._registry.clock(), secrets.token_hex(16)
        plans = [(family, found), *((secrets.token_hex(16), without[node]) for node in sorted(without))]
        replies = []
        with self._registry.writing() as connection:
            before = self._clear(connection, primary, request, now)
            first = self._registry.next_epochs(connection, primary, len(plans))
            for epoch, (id, chosen) in enumerate(plans, start=first):
                left_out = self._named([*reasons.items(), *chosen.left_out])
                row = {"family": family, "active": id == family, "epoch": epoch, "created_s": now}
                stored = _stored(request.model, chosen, left_out)
                same = before is not None and before.plan["spans"] == stored["spans"] and id == family
                measured = before.measured if before is not None and same else {}
                connection.execute(
                    insert(pipelines).values(id=id, primary=primary, plan=stored, measured=measured, **row)
                )
                reply = self._reply(primary, request.model, chosen, id, nodes)
                replies.append({**reply, "epoch": epoch, "left_out": left_out})
        return {**replies[0], "spares": dict(zip(sorted(without), replies[1:], strict=True))}

    def _clear(
        self, connection: Connection, primary: str, request: PipelineRequest, now: float
    ) -> Row[Any] | None:
        """Delete what the request supersedes and what is forgotten; returns what was in use until now."""
        rows = connection.execute(select(pipelines).where(pipelines.c.primary == primary)).all()
        superseded = [row for row in rows if _superseded(row, primary, request)]
        families = {row.family for row in superseded}
        connection.execute(delete(pipelines).where(pipelines.c.family.in_(families)))
        kept = {node.id for node in self._registry.live("primary")} | {primary}
        old = (pipelines.c.created_s < now - _FORGOTTEN_AFTER_S) & pipelines.c.primary.not_in(kept)
        connection.execute(delete(pipelines).where(old))
        return next((row for row in superseded if row.active), None)

    def _reply(
        self, primary: str, model: ModelRequest, chosen: Plan, id: str, nodes: Mapping[str, Node]
    ) -> dict[str, Any]:
        expires = int(self._registry.clock() + TICKET_LIFE_S)

        def ticket(caller: str, to: PlannedSpan) -> str:
            right = Ticket(to.node, caller, model.hash, to.start, to.stop, expires, id)
            return issue(self._authority, right)

        workers: list[dict[str, Any]] = []
        for span, following in zip(chosen.spans, [*chosen.spans[1:], None], strict=True):
            report = nodes[span.node].report
            endpoints = [endpoint.model_dump() for endpoint in report.endpoints] if report is not None else []
            workers.append(
                {
                    "node": span.node,
                    "name": nodes[span.node].name,
                    "start": span.start,
                    "stop": span.stop,
                    "host": report.host if report is not None else "",
                    "endpoints": endpoints,
                    "ticket": ticket(primary, span),
                    "next_ticket": ticket(span.node, following) if following is not None else None,
                }
            )
        times = {"token_s": chosen.token_s, "floor_s": chosen.floor_s, "note": chosen.note}
        return {"pipeline": id, "lease_s": TICKET_LIFE_S, "workers": workers, **times}

    def _use(self, primary: str, row: Row[Any], report: PipelineReport) -> None:
        """Note what was measured, and bring a spare into use with its first report."""
        measured = dict(row.measured)
        measured["tokens"] = measured.get("tokens", 0) + report.tokens
        for name in ("token_s", "floor_s"):
            if getattr(report, name) is not None:
                measured[name] = getattr(report, name)
        if report.speeds:
            measured["speeds"] = report.speeds
        if report.hops_ms:
            measured["hops_ms"] = report.hops_ms
        family = pipelines.c.family == row.family
        with self._registry.writing() as connection:
            here = pipelines.c.id == row.id
            connection.execute(update(pipelines).where(here).values(measured=measured))
            used = connection.execute(select(pipelines.c.epoch).where(family & pipelines.c.active)).scalar()
            if used is not None and row.epoch > used:
                connection.execute(update(pipelines).where(family).values(active=False))
                connection.execute(update(pipelines).where(here).values(active=True))

    def _owned(self, primary: str, pipeline: str) -> Row[Any]:
        chosen = select(pipelines).where((pipelines.c.id == pipeline) & (pipelines.c.primary == primary))
        with self._engine.connect() as connection:
            row = connection.execute(chosen).first()
        if row is None:
            raise UnknownPipeline(
                f"This primary has no pipeline {pipeline[:32]}; it was replaced or closed. Ask for a new one."
            )
        return row


def _superseded(row: Row[Any], primary: str, request: PipelineRequest) -> bool:
    """Whether a pipeline gives way to the requested one: it is named, or of the same primary and model."""
    same_model = bool(row.plan["model"]["hash"] == request.model.hash)
    return row.primary == primary and (same_model or request.replaces in (row.id, row.family))


def _stored(model: ModelRequest, chosen: Plan, left_out: list[list[str]]) -> dict[str, Any]:
    """A plan as it is kept, for loads, memory and status."""
    return {
        "model": model.model_dump(),
        "spans": [[span.node, span.start, span.stop] for span in chosen.spans],
        "compute_s": [span.compute_s for span in chosen.spans],
        "hop_s": [span.hop_s for span in chosen.spans],
        "token_s": chosen.token_s,
        "floor_s": chosen.floor_s,
        "note": chosen.note,
        "left_out": left_out,
    }
