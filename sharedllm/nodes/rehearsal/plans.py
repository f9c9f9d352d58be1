"""The coordinator of a rehearsal: a list of plans, of which the first that is possible is taken."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sharedllm.nodes.errors import NoPipeline
from sharedllm.nodes.identity import Authority, Identity, Ticket, issue
from sharedllm.nodes.rehearsal.workers import Worker

__all__ = ["Plan", "Script"]

Plan = Sequence[tuple[str, int, int]]
"""Which worker, by name, computes which layers ``[start, stop)``, in order."""

_TICKET_S = 3600


class Script:
    """Signs tickets for the first of ``plans`` whose workers live and are not banned."""

    def __init__(
        self,
        authority: Authority,
        primary: Identity,
        model: str,
        plans: Sequence[Plan],
        workers: Mapping[str, Worker],
    ) -> None:
        self._authority, self._primary, self._model = authority, primary, model
        self._plans, self._workers = plans, workers
        self._epoch = 0

    def open_pipeline(self, request: Mapping[str, Any], *, deadline_s: float = 0.0) -> dict[str, Any]:
        """The reply of ``POST /v1/pipelines``. Raises ``NoPipeline`` when no plan is possible."""
        banned = set(request["banned"])
        nodes = {name: worker.identity.id for name, worker in self._workers.items() if worker.alive}
        for plan in self._plans:
            if all(nodes.get(name, "") not in {"", *banned} for name, _, _ in plan):
                break
        else:
            raise NoPipeline("No plan of this rehearsal is possible with the workers that live.")
        if request.get("dry"):
            spans = [[nodes[name], start, stop] for name, start, stop in plan]
            return {"spans": spans, "token_s": 0.0, "spared": []}
        return self._reply(plan, secrets.token_hex(16))

    def report(self, pipeline: str, report: Mapping[str, Any], *, deadline_s: float = 0.0) -> None:
        """Hear how a pipeline does; plans don't change."""

    def close_pipeline(self, pipeline: str, *, deadline_s: float = 0.0) -> None:
        """Hear that a pipeline is given up."""

    def _reply(self, plan: Plan, pipeline: str) -> dict[str, Any]:
        self._epoch += 1
        members = []
        for i, (name, start, stop) in enumerate(plan):
            own = self._ticket(self._primary.id, plan[i], pipeline)
            here = self._workers[name].identity.id
            onward = self._ticket(here, plan[i + 1], pipeline) if i + 1 < len(plan) else None
            member = {"node": here, "name": name, "start": start, "stop": stop, "host": "rehearsal"}
            endpoints = [self._workers[name].endpoint.to_dict()]
            members.append({**member, "endpoints": endpoints, "ticket": own, "next_ticket": onward})
        return {
            "pipeline": pipeline,
            "epoch": self._epoch,
            "workers": members,
            "token_s": 0.0,
            "floor_s": 0.0,
            "left_out": [],
            "spares": {},
        }

    def _ticket(self, caller: str, placed: tuple[str, int, int], pipeline: str) -> str:
        name, start, stop = placed
        node, expires = self._workers[name].identity.id, int(time.time()) + _TICKET_S
        return issue(self._authority, Ticket(node, caller, self._model, start, stop, expires, pipeline))
