"""Every measured quantity of every role, by name, in one place; units are seconds, bytes and shares.

A process updates those of its role and serves all: one that it never touches stays at zero or absent.
``grafana.json`` draws them. Nothing here identifies a person, and no label grows with the number of requests.
"""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

__all__ = ["CONTENT_TYPE", "REGISTRY", "exposition", "names"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter says little
REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

_STEP_S = (
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.04,
    0.06,
    0.08,
    0.12,
    0.16,
    0.25,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
)
_PLAN_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def _counter(name: str, says: str, *labels: str) -> Counter:
    return Counter(f"sharedllm_{name}", says, labels, registry=REGISTRY)


def _gauge(name: str, says: str, *labels: str) -> Gauge:
    return Gauge(f"sharedllm_{name}", says, labels, registry=REGISTRY)


def _histogram(name: str, says: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"sharedllm_{name}", says, labels, buckets=buckets, registry=REGISTRY)


node = Info("sharedllm_node", "Role, name and version of this process.", registry=REGISTRY)

# coordinator
nodes = _gauge("nodes", "Nodes with a lease, by role.", "role")
leases_expired = _counter("leases_expired_total", "Nodes that let their lease run out.")
heartbeats = _counter("heartbeats_total", "Heartbeats answered.")
joins = _counter("joins_total", "Attempts to join, by outcome (joined, refused).", "outcome")
pipelines = _gauge("pipelines", "Pipelines in use.")
plans = _counter("plans_total", "Requests for a pipeline, by outcome (planned, no_home).", "outcome")
plan_seconds = _histogram("plan_seconds", "Time to plan one pipeline.", _PLAN_S)

# primary
requests = _counter("requests_total", "Requests ended, by outcome (stop, length, cancelled, …).", "outcome")
http_requests = _counter(
    "http_requests_total", "Answers to HTTP requests, by route.", "route", "method", "status"
)
answers_audited = _counter("answers_audited_total", "Answers that are in the audit log as a whole.")
answers_unaudited = _counter("answers_unaudited_total", "Answers served but not audited: no receipt.")
active = _gauge("requests_active", "Requests that are generating.")
waiting = _gauge("requests_waiting", "Requests in the queue.")
tokens = _counter("tokens_total", "Tokens, by kind (prompt, cached, generated).", "kind")
first_token_seconds = _histogram("first_token_seconds", "Request accepted to first token.", _STEP_S)
step_seconds = _histogram("step_seconds", "One step of the ring, from embedding to logits.", _STEP_S)
hop_seconds = _gauge("hop_seconds", "Time to reach a node from the one before it in the ring.", "node")
compute_seconds = _gauge("compute_seconds", "Time a node computes in one step.", "node")
failovers = _counter("failovers_total", "Pipelines replaced in use, by what the worker was.", "kind")
failover_seconds = _histogram("failover_seconds", "Fault seen to next token.", _STEP_S)
floor_share = _gauge("floor_share", "Fastest possible step over measured step, 0 to 1.")
ready = _gauge("ready", "1 if a real token went through the whole pipeline, else 0.")

# worker
kv_bytes = _gauge("kv_bytes", "Bytes of key and value cache held.")
weights_bytes = _gauge("weights_bytes", "Bytes of weights held.")
sessions = _gauge("sessions", "Spans opened by primaries.")
engine_restarts = _counter("engine_restarts_total", "Times the engine process was started again.")

# proxy and relay
proxy_connections = _gauge("proxy_connections", "Connections being spliced.")
proxy_bytes = _counter("proxy_bytes_total", "Bytes spliced, by direction (in, out).", "direction")
proxy_handshakes = _counter("proxy_handshakes_total", "Callers admitted.")
proxy_refusals = _counter("proxy_refusals_total", "Callers refused, by reason.", "reason")
relay_bytes = _counter("relay_bytes_total", "Bytes of ciphertext passed on for others.")


def exposition() -> bytes:
    """Return all metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)


def names() -> set[str]:
    """Return the name of every series this project defines, as a query must write it."""
    found = set()
    for family in REGISTRY.collect():
        if family.name.startswith("sharedllm_"):
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}
            found |= {family.name + suffix for suffix in suffixes.get(family.type, [""])}
    return found
