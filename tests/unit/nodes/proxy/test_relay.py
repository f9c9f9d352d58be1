"""A worker without an open port is reached through a relay, which can neither read nor pretend."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from sharedllm.nodes.errors import DialFailed, TicketRefused
from sharedllm.nodes.identity import Identity, Peer
from sharedllm.nodes.proxy import Endpoint, Limits, Registration, Relay, dial, splice
from sharedllm.nodes.proxy import relayed as legs
from tests.unit.nodes.proxy.federation import DEADLINE_S, Engine, Federation


@dataclass
class Relayed:
    """A relay, and the means to register workers with it and to call them."""

    federation: Federation
    relay: Relay
    endpoint: Endpoint
    revoked: set[str]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def register(self, identity: Identity, adopt: Any) -> None:
        async def start() -> None:
            registration = Registration(identity, self.endpoint, adopt)
            self.tasks.append(asyncio.create_task(registration.run()))
            await registration.registered.wait()

        self.federation.loop.do(start)

    def call(self, **changes: Any) -> Any:
        facts = {
            "expect": self.federation.worker.id,
            "identity": self.federation.primary,
            "deadline_s": DEADLINE_S,
        }
        return dial([self.endpoint], self.federation.ticket(), **{**facts, **changes})

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.relay.close()


@pytest.fixture
def relayed(federation: Federation) -> Iterator[Relayed]:
    host = federation.node("host", "coordinator")
    revoked: set[str] = set()

    def admit(peer: Peer) -> None:
        if peer.id in revoked:
            raise TicketRefused(f"Node {peer.id} was revoked.")

    async def start() -> tuple[Relay, int]:
        relay = Relay(host, admit=admit, limits=Limits(handshake_s=2.0), on_event=federation.events.put)
        return relay, await relay.serve("127.0.0.1", 0)

    relay, port = federation.loop.do(start)
    relayed = Relayed(federation, relay, Endpoint("relay", "127.0.0.1", port, host.id), revoked)
    yield relayed
    federation.loop.do(relayed.close)


def test_a_worker_is_reached_through_a_relay(
    federation: Federation, engine: Engine, relayed: Relayed
) -> None:
    data = bytes(range(256)) * 4000
    with federation.proxy(engine.path) as (proxy, _):
        relayed.register(federation.worker, proxy.adopt)
        with relayed.call() as connected:
            connected.settimeout(DEADLINE_S)
            connected.sendall(data[:100_000])
            received = bytearray()
            while len(received) < 100_000:
                received += connected.recv(65536)
    assert received == data[:100_000]


def test_two_calls_at_once_do_not_meet(federation: Federation, engine: Engine, relayed: Relayed) -> None:
    with federation.proxy(engine.path) as (proxy, _):
        relayed.register(federation.worker, proxy.adopt)
        with relayed.call() as one, relayed.call() as other:
            one.sendall(b"1")
            other.sendall(b"2")
            assert (other.recv(1), one.recv(1)) == (b"2", b"1")


def test_a_lan_address_is_preferred_to_the_relay(
    federation: Federation, engine: Engine, relayed: Relayed
) -> None:
    with (
        federation.proxy(engine.path) as (_, direct),
        dial(
            [relayed.endpoint, direct],
            federation.ticket(),
            expect=federation.worker.id,
            identity=federation.primary,
            deadline_s=DEADLINE_S,
        ) as connected,
    ):
        assert connected.getpeername()[1] == direct.port


def test_the_relay_sees_neither_ticket_nor_bytes(
    federation: Federation, engine: Engine, relayed: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = bytearray()
    advance = splice._Flow.advance

    def watched(flow: Any) -> bool:
        moved = advance(flow)
        # every pump but the proxy's own: the relay's, and those of both legs
        if not reaches(flow, engine):
            seen.extend(flow._view)
        return moved

    monkeypatch.setattr(splice._Flow, "advance", watched)
    secret, ticket = b"a sentence nobody else may read", federation.ticket()
    with federation.proxy(engine.path) as (proxy, _):
        relayed.register(federation.worker, proxy.adopt)
        with relayed.call() as connected:
            connected.sendall(secret)
            assert connected.recv(100) == secret
    assert len(seen) > 0
    assert secret not in seen
    assert ticket.encode() not in seen


def reaches(flow: Any, engine: Engine) -> bool:
    """Whether one end of a pump is the engine's socket."""
    for end in (flow.source, flow.sink):
        with contextlib.suppress(OSError, AttributeError):
            if end._socket.getpeername() == str(engine.path):
                return True
    return False


def test_a_worker_that_is_not_registered_is_told(federation: Federation, relayed: Relayed) -> None:
    with pytest.raises(DialFailed, match=f"Node {federation.worker.id} is not registered with this relay"):
        relayed.call()


def test_a_worker_that_hears_but_does_not_answer_is_told(federation: Federation, relayed: Relayed) -> None:
    request = {"do": "register"}
    deaf = federation.loop.do(lambda: legs._ask(federation.worker, relayed.endpoint, request, DEADLINE_S))
    with pytest.raises(DialFailed, match="is registered with this relay but does not answer it"):
        relayed.call()
    deaf.close()


def test_another_node_in_the_relays_place_is_not_believed(federation: Federation, relayed: Relayed) -> None:
    other = Endpoint("relay", relayed.endpoint.host, relayed.endpoint.port, "e" * 32)
    with pytest.raises(DialFailed, match="The relay is node"):
        dial([other], "", expect="f" * 32, identity=federation.primary, deadline_s=DEADLINE_S)


def test_a_revoked_node_can_not_use_the_relay(federation: Federation, relayed: Relayed) -> None:
    relayed.revoked.add(federation.primary.id)
    with pytest.raises(DialFailed, match="was revoked"):
        relayed.call()


def test_a_primary_can_not_register_as_a_worker(federation: Federation, relayed: Relayed) -> None:
    assert refusal(federation, relayed, federation.primary, {"do": "register"}).startswith("A relay takes")


@pytest.mark.parametrize(
    "request_", [{}, {"do": "call"}, {"do": "call", "node": "x"}, {"do": "answer", "call": 1}]
)
def test_what_is_no_request_is_refused(
    federation: Federation, relayed: Relayed, request_: dict[str, Any]
) -> None:
    assert refusal(federation, relayed, federation.worker, request_).startswith("A relay takes")


def test_an_answer_to_no_call_is_refused(federation: Federation, relayed: Relayed) -> None:
    sentence = refusal(federation, relayed, federation.worker, {"do": "answer", "call": "0" * 32})
    assert sentence == "Nobody waits for this answer any more."


def refusal(federation: Federation, relayed: Relayed, identity: Identity, request_: dict[str, Any]) -> str:
    with pytest.raises(TicketRefused) as caught:
        federation.loop.do(lambda: legs._ask(identity, relayed.endpoint, request_, DEADLINE_S))
    return str(caught.value)


def test_a_worker_comes_back_after_it_was_cut_off(
    federation: Federation, engine: Engine, relayed: Relayed
) -> None:
    with federation.proxy(engine.path) as (proxy, _):
        relayed.register(federation.worker, proxy.adopt)
        federation.loop.call(lambda: relayed.relay.cut(federation.worker.id))
        federation.event("cut")

        async def back() -> None:
            while federation.worker.id not in relayed.relay.workers:
                await asyncio.sleep(0.01)

        federation.loop.do(back)
        with relayed.call() as connected:
            connected.sendall(b"!")
            assert connected.recv(1) == b"!"
