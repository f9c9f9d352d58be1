"""Members of one federation, and gossip services between them on loopback, faster than in life."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sharedllm.nodes.gossip import Contact, Lease, Service
from sharedllm.nodes.identity import Authority, Identity, enrol

ROUND_S = 0.02


class Members:
    """Services by name, each with an identity of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.load_or_create(folder / "authority")
        self.running: list[Service] = []

    def identity(self, name: str, role: str = "worker") -> Identity:
        return enrol(self.authority, self.folder / name, role)

    def start(self, name: str, seeds: list[Contact], **more: Any) -> Service:
        def lease(host: str, port: int) -> Lease:
            return Lease(name, host, port)

        identity = more.pop("identity", None) or self.identity(name)
        service = Service(identity, lease, seeds=seeds, **{"round_s": ROUND_S, "lease_s": 1.5, **more})
        service.start()
        self.running.append(service)
        return service

    def several(self, count: int) -> list[Service]:
        first = self.start("first", [])
        return [first, *[self.start(f"node-{i}", [first.peer.me]) for i in range(1, count)]]

    def stop(self, service: Service) -> None:
        self.running.remove(service)
        service.stop()


def within(holds: Callable[[], bool], deadline_s: float = 20.0) -> None:
    """Wait until something holds; fail when it does not in time."""
    until_s = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < until_s, f"not so within {deadline_s} s"
        threading.Event().wait(0.01)
