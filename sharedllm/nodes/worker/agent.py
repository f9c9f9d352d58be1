"""The worker's parent process: the proxy on its one port, the lease, health, and an orderly end.

On SIGTERM it takes no new pipelines, asks primaries to move theirs, and leaves when they have, or after a few
seconds.

*Covered*: a coordinator that is away (what runs goes on), callers that are revoked (their connections end at
once), being paused. *Not covered*: a worker that is itself revoked keeps running; nobody talks to it.
"""

from __future__ import annotations

import asyncio
import platform
import signal
import time
import uuid
from typing import Any

import psutil

import sharedllm
from sharedllm.nodes.coordinator.client import CoordinatorClient
from sharedllm.nodes.coordinator.heartbeat import Heartbeat
from sharedllm.nodes.errors import TicketRefused
from sharedllm.nodes.gossip import Contact, Lease, Service
from sharedllm.nodes.identity import Identity, Peer, Ticket
from sharedllm.nodes.operations import Health, metrics
from sharedllm.nodes.proxy import Endpoint, Event, Proxy, Registration, Relay
from sharedllm.nodes.trust import Quorum
from sharedllm.nodes.worker.engine import EngineProcess
from sharedllm.nodes.worker.settings import WorkerSettings

__all__ = ["serve"]

_MEMORY_SHARE = 0.8


def serve(settings: WorkerSettings) -> None:
    """Be a worker until SIGTERM or SIGINT; prints ``ready <address>`` once it can be used.

    Raises ``NotAdmitted`` for a state folder that has not joined, ``OSError`` for a port that is taken.
    """
    asyncio.run(_Agent(settings).run())


class _Agent:
    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.identity = Identity.load(settings.state)
        self.memory_bytes = settings.memory_bytes or int(psutil.virtual_memory().available * _MEMORY_SHARE)
        self.endpoints = list(settings.endpoints)
        self.started = time.time()
        self.revoked: set[str] = set()
        self.paused = self.draining = False
        self.relay: Relay | None = None
        self.relay_port: int | None = None
        self.gossip: Service | None = None
        self.quorum = Quorum(settings.state, self._expelled)
        self.relayed: tuple[Endpoint, asyncio.Task[None]] | None = None

    async def run(self) -> None:
        """Everything, from the engine's start to its end."""
        self.loop = asyncio.get_running_loop()
        ending = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, ending.set)
        self.engine = EngineProcess(self.settings, self.memory_bytes)
        try:
            # an engine that never comes up must not keep anyone from ending the worker
            begun = [asyncio.ensure_future(step) for step in (self.engine.start(), ending.wait())]
            await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
            for step in begun:
                step.cancel()
            if not ending.is_set():
                await self._serve(ending)
        finally:
            await self.engine.stop()

    async def _serve(self, ending: asyncio.Event) -> None:
        """Listen, keep the lease, and hand over when it is time to go."""
        self.proxy = Proxy(
            self.identity, engine_socket=self.engine.socket, admit=self._admit, on_event=self._happened
        )
        port = await self.proxy.serve(self.settings.host, self.settings.rpc_port)
        if not self.endpoints:
            host = "127.0.0.1" if self.settings.host in ("0.0.0.0", "::") else self.settings.host
            self.endpoints.append(Endpoint("lan", host, port))
        if self.settings.relay:
            self.relay = Relay(self.identity, admit=self._admit_caller, on_event=self._passed_on)
            self.relay_port = await self.relay.serve(
                self.settings.host, port + 1 if self.settings.rpc_port else 0
            )
        if self.settings.gossip is not None:
            self.gossip = self._gossiping(*self.settings.gossip)
        client = CoordinatorClient(self.identity, self.settings.coordinator_url)
        heartbeat = Heartbeat(client, self._report, self._replied)
        heartbeat.start()
        health = (
            Health(self._ready, *self.settings.operations, self._collect)
            if self.settings.operations
            else None
        )
        try:
            if await asyncio.to_thread(heartbeat.wait, 30.0):
                print(f"ready {self.endpoints[0].host}:{port}", flush=True)
            else:
                print(f"ready {self.endpoints[0].host}:{port} (the coordinator is away)", flush=True)
            await ending.wait()
            self.draining = True
            heartbeat.beat_now()
            self.proxy.drain()
            await self.engine.stop()
        finally:
            await asyncio.to_thread(heartbeat.stop)
            client.close()
            self._register(None)
            if self.gossip is not None:
                await asyncio.to_thread(self.gossip.stop)
            for guarded in (self.proxy, self.relay):
                if guarded is not None:
                    await guarded.close()
            if health is not None:
                health.close()

    def _admit(self, ticket: Ticket, peer: Peer) -> None:
        """The last word on a caller with a good ticket."""
        self._admit_caller(peer)
        if self.paused:
            raise TicketRefused("This worker is paused by its owner; use another.")

    def _admit_caller(self, peer: Peer) -> None:
        if peer.id in self.revoked:
            raise TicketRefused(f"Node {peer.id[:8]} was revoked; ask the coordinator's owner.")
        if self.quorum.expelled(peer.id):
            raise TicketRefused(f"Node {peer.id[:8]} was expelled by two thirds of the members.")

    def _report(self) -> dict[str, Any]:
        news, settings = self.engine.news, self.settings
        return {
            "name": settings.name,
            "role": "worker",
            "host": f"{platform.node()}-{uuid.getnode():012x}",
            "started": self.started,
            "endpoints": [endpoint.to_dict() for endpoint in self._candidates()],
            "relay_port": self.relay_port,
            "memory_bytes": self.memory_bytes,
            "share": settings.share,
            "read_bytes_per_s": news.read_bytes_per_s,
            "sessions": news.sessions,
            "kv_bytes": news.kv_bytes,
            "weights_bytes": news.weights_bytes,
            "traffic": {"in_bytes": news.in_bytes, "out_bytes": news.out_bytes},
            "draining": self.draining,
            "version": sharedllm.__version__,
        }

    def _replied(self, reply: dict[str, Any]) -> None:
        """Act on the coordinator's answer; called in the heartbeat's thread."""
        self.paused = bool(reply["paused"])
        fresh = set(reply["revoked"]) - self.revoked
        self.revoked = set(reply["revoked"])
        for node in fresh:
            self.loop.call_soon_threadsafe(self._cut, node)
        if self.gossip is not None and reply.get("gossip"):
            self.gossip.meet(Contact(**reply["gossip"]))
        relay = Endpoint.from_dict(reply["relay"]) if reply["relay"] else None
        self.loop.call_soon_threadsafe(self._register, relay)

    def _gossiping(self, advertised: str, port: int) -> Service:
        """Gossip from now on. Raises ``PortTaken``."""
        gossip = Service(
            self.identity,
            lambda host, heard: Lease(self.settings.name, host, heard, tuple(self._candidates())),
            host=self.settings.host,
            port=port,
            advertised=advertised,
            refuses=lambda node: node in self.revoked or self.quorum.expelled(node),
            each_round=self.quorum.review,
            memory=self.settings.state / "nodes.json",
        )
        gossip.start()
        return gossip

    def _expelled(self, node: str) -> None:
        """Act on a quorum's word; called in the thread of gossip."""
        self.loop.call_soon_threadsafe(self._cut, node)

    def _cut(self, node: str) -> None:
        """End every connection of a node that was revoked, and forget what it said."""
        if self.gossip is not None:
            self.gossip.expel(node)
        self.proxy.cut(node)
        if self.relay is not None:
            self.relay.cut(node)

    def _register(self, relay: Endpoint | None) -> None:
        """Be reachable through ``relay``, and no longer through another; a node is not its own relay."""
        if relay is not None and relay.relay == self.identity.id:
            relay = None
        if self.relayed is not None and self.relayed[0] != relay:
            self.relayed[1].cancel()
            self.relayed = None
        if relay is not None and self.relayed is None:
            registration = Registration(self.identity, relay, self.proxy.adopt)
            self.relayed = (relay, asyncio.get_running_loop().create_task(registration.run()))

    def _candidates(self) -> list[Endpoint]:
        """Where this worker says that it can be reached: its own addresses, then the relay."""
        return [*self.endpoints, *([self.relayed[0]] if self.relayed is not None else [])]

    def _passed_on(self, event: Event) -> None:
        if event.kind == "ended":
            metrics.relay_bytes.inc(event.in_bytes + event.out_bytes)

    def _happened(self, event: Event) -> None:
        """Count what the proxy tells."""
        if event.kind == "admitted":
            metrics.proxy_handshakes.inc()
        elif event.kind == "ended":
            metrics.proxy_bytes.labels("in").inc(event.in_bytes)
            metrics.proxy_bytes.labels("out").inc(event.out_bytes)
        else:
            metrics.proxy_refusals.labels(event.kind).inc()

    def _ready(self) -> tuple[bool, str]:
        if self.draining:
            return False, "This worker is leaving."
        if not self.engine.news.read_bytes_per_s:
            return False, "The engine is being started."
        return True, f"The engine serves {self.engine.news.sessions} pipelines."

    def _collect(self) -> None:
        news = self.engine.news
        metrics.sessions.set(news.sessions)
        metrics.kv_bytes.set(news.kv_bytes)
        metrics.weights_bytes.set(news.weights_bytes)
        metrics.proxy_connections.set(self.proxy.connections)
