"""Only a proven node with its own valid ticket reaches the engine, and everyone else hears why not."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import time
from pathlib import Path

import pytest

from sharedllm.nodes.errors import DialFailed, TicketRefused
from sharedllm.nodes.identity import Authority, Identity, client_context, enrol
from sharedllm.nodes.proxy import Endpoint, Limits, Proxy, dial
from tests.unit.nodes.proxy.federation import DEADLINE_S, Engine, Federation


def call(
    federation: Federation, endpoint: Endpoint, ticket: str, caller: Identity | None = None
) -> ssl.SSLSocket:
    return dial(
        [endpoint],
        ticket,
        expect=federation.worker.id,
        identity=caller or federation.primary,
        deadline_s=DEADLINE_S,
    )


def exactly(connected: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        more = connected.recv(count - len(received))
        assert more, "the connection ended too early"
        received += more
    return received


def answer_to(federation: Federation, endpoint: Endpoint, said: bytes) -> str:
    """The proxy's refusal of ``said``, spoken by the primary after its handshake."""
    with (
        socket.create_connection((endpoint.host, endpoint.port), timeout=DEADLINE_S) as raw,
        client_context(federation.primary).wrap_socket(raw) as connected,
    ):
        connected.sendall(said)
        assert exactly(connected, 1) == b"\x01"
        (length,) = struct.unpack(">I", exactly(connected, 4))
        return exactly(connected, length).decode()


def test_an_admitted_caller_reaches_the_engine(federation: Federation, engine: Engine) -> None:
    with (
        federation.proxy(engine.path) as (_, endpoint),
        call(federation, endpoint, federation.ticket()) as connected,
    ):
        connected.sendall(b"hello")
        assert exactly(connected, 5) == b"hello"


def test_the_engine_is_told_whom_it_serves(federation: Federation, engine: Engine) -> None:
    with (
        federation.proxy(engine.path, preamble=True) as (_, endpoint),
        call(federation, endpoint, federation.ticket()) as connected,
    ):
        (length,) = struct.unpack(">I", exactly(connected, 4))
        told = json.loads(exactly(connected, length))
    assert told == {
        "caller": federation.primary.id,
        "worker": federation.worker.id,
        "model": "a" * 64,
        "start": 2,
        "stop": 7,
        "pipeline": "b" * 32,
    }


def test_a_ticket_replayed_by_another_node_is_refused(federation: Federation, engine: Engine) -> None:
    thief = federation.node("thief")
    with (
        federation.proxy(engine.path) as (_, endpoint),
        pytest.raises(TicketRefused, match=f"issued to {federation.primary.id}; {thief.id} can't use it"),
    ):
        call(federation, endpoint, federation.ticket(), thief)
    assert engine.calls == 0


def test_an_expired_ticket_is_refused(federation: Federation, engine: Engine) -> None:
    with federation.proxy(engine.path) as (_, endpoint), pytest.raises(TicketRefused, match="expired"):
        call(federation, endpoint, federation.ticket(expires=int(time.time()) - 5))


def test_a_ticket_for_another_worker_is_refused(federation: Federation, engine: Engine) -> None:
    with federation.proxy(engine.path) as (_, endpoint), pytest.raises(TicketRefused, match="is for worker"):
        call(federation, endpoint, federation.ticket(worker="c" * 32))


def test_an_oversize_ticket_is_refused_before_it_is_read(federation: Federation, engine: Engine) -> None:
    with federation.proxy(engine.path) as (_, endpoint):
        sentence = answer_to(federation, endpoint, struct.pack(">I", 1 << 31) + b"x" * 30_000)
    assert sentence == f"A ticket of {1 << 31} bytes was announced; none is longer than 2048."


def test_a_revoked_caller_is_refused(federation: Federation, engine: Engine) -> None:
    federation.revoked.add(federation.primary.id)
    with federation.proxy(engine.path) as (_, endpoint), pytest.raises(TicketRefused, match="was revoked"):
        call(federation, endpoint, federation.ticket())


def test_a_certificate_of_another_federation_is_refused(
    federation: Federation, engine: Engine, tmp_path: Path
) -> None:
    other = Authority.load_or_create(tmp_path / "other")
    stranger = enrol(other, tmp_path / "stranger", "primary")
    (tmp_path / "stranger" / "ca.crt").write_bytes(federation.authority.certificate_pem)
    context = client_context(federation.primary)
    context.load_cert_chain(tmp_path / "stranger" / "node.crt", tmp_path / "stranger" / "node.key")
    assert stranger.id != federation.primary.id
    with (
        federation.proxy(engine.path) as (_, endpoint),
        socket.create_connection((endpoint.host, endpoint.port), timeout=DEADLINE_S) as raw,
        context.wrap_socket(raw) as connected,
        pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca|decrypt.error|bad.certificate"),
    ):
        connected.recv(1)


def test_a_caller_without_a_certificate_is_refused(federation: Federation, engine: Engine) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=federation.authority.certificate_pem.decode())
    with (
        federation.proxy(engine.path) as (_, endpoint),
        socket.create_connection((endpoint.host, endpoint.port), timeout=DEADLINE_S) as raw,
        context.wrap_socket(raw) as connected,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
    ):
        connected.recv(1)


def test_a_caller_with_an_expired_certificate_is_refused(federation: Federation, engine: Engine) -> None:
    late = federation.folder / "primary"
    key = federation.primary.key
    expired = federation.authority.issue(key.public_bytes, "primary", seconds=60, now=time.time() - 3600)
    (late / "node.crt").write_bytes(expired)
    with (
        federation.proxy(engine.path) as (_, endpoint),
        pytest.raises(DialFailed, match="certificate expired"),
    ):
        call(federation, endpoint, federation.ticket(), Identity.load(late))


def test_an_older_tls_is_refused(federation: Federation, engine: Engine) -> None:
    context = client_context(federation.primary)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        federation.proxy(engine.path) as (_, endpoint),
        socket.create_connection((endpoint.host, endpoint.port), timeout=DEADLINE_S) as raw,
        pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"),
    ):
        context.wrap_socket(raw)


def test_an_engine_that_is_down_is_a_sentence(federation: Federation, tmp_path: Path) -> None:
    with (
        federation.proxy(tmp_path / "nothing.sock") as (_, endpoint),
        pytest.raises(TicketRefused, match=r"engine is not running \(No such file or directory\)"),
    ):
        call(federation, endpoint, federation.ticket())


def test_a_node_over_its_connection_limit_is_refused(federation: Federation, engine: Engine) -> None:
    limits = Limits(connections_per_peer=2)
    with (
        federation.proxy(engine.path, limits=limits) as (_, endpoint),
        call(federation, endpoint, federation.ticket()),
        call(federation, endpoint, federation.ticket()),
        pytest.raises(TicketRefused, match="already has 2 connections here"),
    ):
        call(federation, endpoint, federation.ticket())


def test_another_node_is_not_counted_with_it(federation: Federation, engine: Engine) -> None:
    neighbour = federation.node("neighbour")
    with (
        federation.proxy(engine.path, limits=Limits(connections_per_peer=1)) as (_, endpoint),
        call(federation, endpoint, federation.ticket()),
        call(federation, endpoint, federation.ticket(caller=neighbour.id), neighbour) as connected,
    ):
        connected.sendall(b"!")
        assert connected.recv(1) == b"!"


def test_a_connection_that_ended_makes_room_for_another(federation: Federation, engine: Engine) -> None:
    with federation.proxy(engine.path, limits=Limits(connections_per_peer=1)) as (_, endpoint):
        call(federation, endpoint, federation.ticket()).close()
        federation.event("ended")
        call(federation, endpoint, federation.ticket()).close()


def cut(federation: Federation, proxy: Proxy) -> int:
    return federation.loop.call(lambda: proxy.cut(federation.primary.id))


def test_a_revoked_node_is_cut_at_once(federation: Federation, engine: Engine) -> None:
    with (
        federation.proxy(engine.path) as (proxy, endpoint),
        call(federation, endpoint, federation.ticket()) as connected,
    ):
        assert cut(federation, proxy) == 1
        connected.settimeout(DEADLINE_S)
        with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
            connected.recv(1)


def test_cutting_one_node_leaves_the_others(federation: Federation, engine: Engine) -> None:
    neighbour = federation.node("neighbour")
    with (
        federation.proxy(engine.path) as (proxy, endpoint),
        call(federation, endpoint, federation.ticket(caller=neighbour.id), neighbour) as connected,
    ):
        assert cut(federation, proxy) == 0
        connected.sendall(b"!")
        assert connected.recv(1) == b"!"


def test_a_draining_proxy_refuses_new_callers_and_keeps_the_old(
    federation: Federation, engine: Engine
) -> None:
    with (
        federation.proxy(engine.path) as (proxy, endpoint),
        call(federation, endpoint, federation.ticket()) as connected,
    ):
        federation.loop.call(proxy.drain)
        with pytest.raises(TicketRefused, match="about to leave"):
            call(federation, endpoint, federation.ticket())
        connected.sendall(b"!")
        assert connected.recv(1) == b"!"
