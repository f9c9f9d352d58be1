"""A worker is found at whichever of its addresses answers first, and nothing else is ever taken for it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from sharedllm.nodes.errors import DialFailed
from sharedllm.nodes.identity import Authority, enrol
from sharedllm.nodes.proxy import Endpoint, Proxy, dial
from tests.unit.nodes.proxy.federation import DEADLINE_S, Engine, Federation


@pytest.fixture
def silent() -> Iterator[Endpoint]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Endpoint("lan", "127.0.0.1", listening.getsockname()[1])


@pytest.fixture
def closed() -> Endpoint:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return Endpoint("lan", "127.0.0.1", listening.getsockname()[1])


def reach(federation: Federation, *endpoints: Endpoint, deadline_s: float = DEADLINE_S) -> None:
    with dial(
        endpoints,
        federation.ticket(),
        expect=federation.worker.id,
        identity=federation.primary,
        deadline_s=deadline_s,
    ) as connected:
        connected.sendall(b"!")
        assert connected.recv(1) == b"!"


def test_an_address_that_hangs_is_overtaken(federation: Federation, engine: Engine, silent: Endpoint) -> None:
    with federation.proxy(engine.path) as (_, endpoint):
        reach(federation, silent, Endpoint("wan", endpoint.host, endpoint.port))


def test_an_address_that_refuses_is_passed_over(
    federation: Federation, engine: Engine, closed: Endpoint
) -> None:
    with federation.proxy(engine.path) as (_, endpoint):
        reach(federation, closed, Endpoint("wan", endpoint.host, endpoint.port))


def test_another_node_at_an_address_is_passed_over(federation: Federation, engine: Engine) -> None:
    imposter = federation.node("imposter", "worker")

    async def start() -> tuple[Proxy, int]:
        proxy = Proxy(imposter, engine_socket=engine.path, admit=federation.admit)
        return proxy, await proxy.serve("127.0.0.1", 0)

    proxy, port = federation.loop.do(start)
    try:
        with federation.proxy(engine.path) as (_, endpoint):
            reach(
                federation, Endpoint("lan", "127.0.0.1", port), Endpoint("wan", endpoint.host, endpoint.port)
            )
        with pytest.raises(DialFailed, match=f"127.0.0.1:{port}: it is node {imposter.id}"):
            reach(federation, Endpoint("lan", "127.0.0.1", port))
    finally:
        federation.loop.do(proxy.close)


def test_a_worker_of_another_federation_is_not_believed(federation: Federation, engine: Engine) -> None:
    stranger = enrol(Authority.load_or_create(federation.folder / "other"), federation.folder / "s", "worker")
    ours, federation.worker = federation.worker, stranger
    with federation.proxy(engine.path) as (_, endpoint):
        federation.worker = ours
        with pytest.raises(DialFailed, match="certificate is not of this federation"):
            reach(federation, endpoint)


def test_an_operators_certificate_can_not_serve(federation: Federation, engine: Engine) -> None:
    federation.worker = federation.node("operator", "operator")
    with federation.proxy(engine.path) as (_, endpoint), pytest.raises(DialFailed, match="certificate"):
        reach(federation, endpoint)


def test_every_failure_is_told(federation: Federation, silent: Endpoint, closed: Endpoint) -> None:
    with pytest.raises(DialFailed) as caught:
        reach(federation, silent, closed, deadline_s=0.5)
    assert f"{closed}: connection refused" in str(caught.value)
    assert f"{silent}: no answer in time" in str(caught.value)


def test_a_node_without_addresses_is_told(federation: Federation) -> None:
    with pytest.raises(DialFailed, match="no address of it is known"):
        reach(federation)


def test_the_deadline_holds_for_a_worker_that_never_answers(federation: Federation, silent: Endpoint) -> None:
    started = time.monotonic()
    with pytest.raises(DialFailed):
        reach(federation, silent, deadline_s=0.3)
    assert time.monotonic() - started < DEADLINE_S


def test_a_renewed_certificate_is_shown_on_the_next_call(federation: Federation, engine: Engine) -> None:
    with federation.proxy(engine.path) as (_, endpoint):
        reach(federation, endpoint)
        expired = federation.authority.issue(
            federation.primary.key.public_bytes, "primary", seconds=60, now=time.time() - 3600
        )
        (federation.folder / "primary" / "node.crt").write_bytes(expired)
        federation.primary.reload()
        with pytest.raises(DialFailed, match="certificate expired"):
            reach(federation, endpoint)
