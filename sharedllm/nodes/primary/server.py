"""The primary's process: both ends of the model, the ring, the lease, and the API and page for people."""

from __future__ import annotations

import dataclasses
import platform
import socket
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Literal

import torch

import sharedllm
from sharedllm import store
from sharedllm.adapters import library
from sharedllm.engines import Ends, kv_bytes_per_token, layer_bytes
from sharedllm.nodes.api import create_app, make_server
from sharedllm.nodes.coordinator.client import CoordinatorClient
from sharedllm.nodes.coordinator.heartbeat import Heartbeat
from sharedllm.nodes.identity import Identity
from sharedllm.nodes.operations import metrics
from sharedllm.nodes.primary.audit import Auditor
from sharedllm.nodes.primary.federated.lineup import Lineup, lineup
from sharedllm.nodes.primary.federated.offering import Offering
from sharedllm.nodes.primary.federated.repertoire import Part, Repertoire
from sharedllm.nodes.primary.federated.wardrobe import Worn
from sharedllm.nodes.primary.loop import Loop
from sharedllm.nodes.primary.results import Model
from sharedllm.nodes.primary.ring import Member
from sharedllm.nodes.primary.routes import Routes
from sharedllm.nodes.primary.service import Primary
from sharedllm.nodes.proxy import Endpoint, dial
from sharedllm.store import specialists
from sharedllm.wire import Codec, encoded_bytes

__all__ = ["PrimarySettings", "serve"]

_DIAL_S = 5.0
_DRAIN_S = 10.0
_PLANNED_TOKENS = 4096  # the planner leaves room for the caches of so many positions


@dataclasses.dataclass(frozen=True)
class PrimarySettings:
    """A primary's state folder, what it serves, and where.

    ``specialists`` are served beside ``model`` by their names, and together as a mixture.
    ``wire``: how hidden states travel. ``spread``: split the model over so many workers (None: as few as are
    fastest). ``api_key_file``: whoever calls must show this key (needed beyond loopback).
    """

    state: Path
    coordinator_url: str
    model: str = "smollm2-135m"
    specialists: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8421
    api_key_file: Path | None = None
    name: str = "primary"
    wire: Literal["fp16", "fp32", "int8"] = "fp16"
    spread: int | None = None
    threads: int | None = None


def serve(settings: PrimarySettings) -> None:
    """Be a primary until SIGTERM or SIGINT; prints ``ready <url>`` once it listens.

    Raises ``NotAdmitted`` for a state folder that has not joined, what ``lineup`` raises for the model and
    its specialists, ``BadLog`` for an audit log that was tampered with, ``PortTaken``, ``BadSetting``.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    # a thread that waits for the interpreter gets it sooner: a token's hops are shorter than the usual 5 ms
    sys.setswitchinterval(0.0005)
    identity = Identity.load(settings.state)
    client = CoordinatorClient(identity, settings.coordinator_url)
    found = lineup(settings.model, settings.specialists)
    repertoire = _repertoire(settings, found, client, identity)
    auditor = Auditor(settings.state / "audit", identity.key)
    tokenizer = store.opened_tokenizer(found.base)
    primary = Primary(repertoire, tokenizer, identity.id, settings.name, auditor)
    key = settings.api_key_file.read_text().strip() if settings.api_key_file else None
    started, urls = time.time(), [""]

    def ready(url: str) -> None:
        urls[0] = url
        print(f"ready {url}", flush=True)

    app = create_app(primary, api_key=key, allowed_hosts=["*"] if key else ())
    server = make_server(app, host=settings.host, port=settings.port, drain_s=_DRAIN_S, ready=ready)
    heartbeat = Heartbeat(
        client,
        lambda: _report(settings, primary, started, urls[0]),
        lambda reply: primary.banish(set(reply["revoked"])),
    )
    offering = Offering(
        client, settings.model, found, lambda: any(loop.requests for loop in repertoire.loops)
    )
    heartbeat.start()
    for thread in (*repertoire.loops, offering):
        thread.start()
    try:
        server.run()
    finally:
        offering.stop()
        primary.close(0.0)
        auditor.close()
        heartbeat.stop()
        client.close()


def _connect(identity: Identity, member: Member) -> socket.socket:
    endpoints = [Endpoint.from_dict(dict(endpoint)) for endpoint in member.endpoints]
    return dial(endpoints, member.ticket, expect=member.node, identity=identity, deadline_s=_DIAL_S)


def _repertoire(
    settings: PrimarySettings, found: Lineup, client: CoordinatorClient, identity: Identity
) -> Repertoire:
    """A loop for every full model, and for every specialist its part in one of them."""
    loops: dict[str, Loop] = {}

    def loop_of(name: str, manifest: store.Manifest) -> Loop:
        if manifest.weights_sha256 not in loops:
            ends = Ends.opened(manifest)
            model = Model(name, manifest.weights_sha256, ends, Codec.named(settings.wire))
            routes = Routes(client, _wish(settings, name, manifest))
            loops[manifest.weights_sha256] = Loop(model, routes, lambda member: _connect(identity, member))
        return loops[manifest.weights_sha256]

    base = Part(settings.model, found.base.sha256, loop_of(settings.model, found.base))
    parts = []
    for name, signed in found.specialists.items():
        if signed is None:
            parts.append(base)
            continue
        loop = loop_of(name, dataclasses.replace(signed.body, adapter=None))
        worn = Worn.over(loop.model.ends, specialists.deltas(signed), name) if signed.body.adapter else None
        parts.append(Part(name, signed.id, loop, worn))
    return Repertoire(base, parts, library)


def _wish(settings: PrimarySettings, name: str, manifest: store.Manifest) -> dict[str, Any]:
    """The model's and the objective's part of every request for a pipeline."""
    config = manifest.config
    spread = (
        {"kind": "spread", "nodes": settings.spread}
        if settings.spread
        else {"kind": "fastest", "nodes": None}
    )
    return {
        "model": {
            "name": name,
            "hash": manifest.weights_sha256,
            "layers": config.layers,
            "layer_bytes": layer_bytes(manifest),
            "cache_bytes_per_layer": _PLANNED_TOKENS * kv_bytes_per_token(config, 1),
            "width": config.width,
            "activation_bytes": encoded_bytes(Codec.named(settings.wire), 1, config.width),
        },
        "objective": spread,
        "trusted": None,
    }


def _report(settings: PrimarySettings, primary: Primary, started: float, url: str) -> dict[str, Any]:
    """A heartbeat's body; the gauges of ``/metrics`` are set at the same pace."""
    state, log = primary.state(), primary.log()
    metrics.active.set(state["active"])
    metrics.waiting.set(state["waiting"])
    metrics.floor_share.set(state["floor_percent"] / 100)
    metrics.ready.set(state["status"] == "ready" and state["token_ms"] > 0)
    for span in state["spans"]:
        metrics.compute_seconds.labels(span["name"]).set(span["compute_ms"] / 1e3)
        metrics.hop_seconds.labels(span["name"]).set(span["hop_ms"] / 1e3)
    return {
        "name": settings.name,
        "role": "primary",
        "host": f"{platform.node()}-{uuid.getnode():012x}",
        "started": started,
        "sessions": state["active"],
        "url": url or None,
        "draining": primary.draining,
        "version": sharedllm.__version__,
        "audit": log and {"key": log["node_key"], "size": log["size"], "unaudited": log["unaudited"]},
    }
