"""Whoever dribbles, floods, or vanishes costs little, and costs the others nothing."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sharedllm.nodes.identity import client_context
from sharedllm.nodes.proxy import Endpoint, Limits, dial
from tests.unit.nodes.proxy.federation import DEADLINE_S, Engine, Federation

HASTY = Limits(handshake_s=0.3)
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(505)

# a worker that may open 64 files, until its standard input ends
FEW_DESCRIPTORS = """
import asyncio, resource, sys
from pathlib import Path
from sharedllm.nodes.identity import Identity
from sharedllm.nodes.proxy import Proxy

async def main():
    proxy = Proxy(
        Identity.load(Path(sys.argv[1])),
        engine_socket=Path(sys.argv[2]),
        admit=lambda ticket, peer: None,
        preamble=False,
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    print(await proxy.serve("127.0.0.1", 0), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await proxy.close()

asyncio.run(main())
"""


def echoes(connected: ssl.SSLSocket) -> bool:
    connected.settimeout(DEADLINE_S)
    connected.sendall(b"!")
    return connected.recv(1) == b"!"


def call(federation: Federation, endpoint: Endpoint) -> ssl.SSLSocket:
    return dial(
        [endpoint],
        federation.ticket(),
        expect=federation.worker.id,
        identity=federation.primary,
        deadline_s=DEADLINE_S,
    )


def dribble(connected: socket.socket, data: bytes) -> None:
    """Send one byte at a time until the other end hangs up; fails if it takes them all."""
    for place in range(len(data)):
        try:
            connected.send(data[place : place + 1])
            arrived, _, _ = select.select([connected], [], [], 0.02)
            if arrived and not connected.recv(1):
                return
        except OSError:
            return
    pytest.fail("every byte was taken")


@contextlib.contextmanager
def half_open(endpoint: Endpoint, count: int) -> Iterator[None]:
    """Connections that never say a word, from several loopback addresses."""
    with contextlib.ExitStack() as stack:
        for number in range(count):
            source = (f"127.0.0.{2 + number % 8}", 0)
            address = (endpoint.host, endpoint.port)
            stack.enter_context(socket.create_connection(address, DEADLINE_S, source_address=source))
        yield


def test_a_handshake_that_dribbles_is_dropped(federation: Federation, engine: Engine) -> None:
    with (
        federation.proxy(engine.path, limits=HASTY) as (_, endpoint),
        socket.create_connection((endpoint.host, endpoint.port)) as raw,
    ):
        dribble(raw, CLIENT_HELLO)
        assert federation.event("dropped").sentence == "Not finished within 0.3 s."


def test_a_ticket_that_dribbles_is_dropped(federation: Federation, engine: Engine) -> None:
    with (
        federation.proxy(engine.path, limits=HASTY) as (_, endpoint),
        socket.create_connection((endpoint.host, endpoint.port)) as raw,
        client_context(federation.primary).wrap_socket(raw) as connected,
    ):
        dribble(connected, struct.pack(">I", 2000) + b"x" * 1999)
        event = federation.event("dropped")
    assert (event.peer, event.sentence) == (federation.primary.id, "Not finished within 0.3 s.")


def test_a_connection_that_never_says_a_word_is_dropped(federation: Federation, engine: Engine) -> None:
    with (
        federation.proxy(engine.path, limits=HASTY) as (_, endpoint),
        socket.create_connection((endpoint.host, endpoint.port), timeout=DEADLINE_S) as raw,
    ):
        assert raw.recv(1) == b""


def test_a_caller_gets_through_between_half_open_connections(federation: Federation, engine: Engine) -> None:
    with (
        federation.proxy(engine.path, limits=Limits(handshakes=64)) as (proxy, endpoint),
        call(federation, endpoint) as before,
        half_open(endpoint, 500),
        call(federation, endpoint) as during,
    ):
        assert echoes(before)
        assert echoes(during)
        # 500 silent ones and each caller's own handshake passed through 64 places
        assert proxy.connections == 2
        assert "oldest" in federation.event("dropped").sentence


def test_a_caller_gets_through_when_descriptors_run_out(federation: Federation, engine: Engine) -> None:
    command = [sys.executable, "-c", FEW_DESCRIPTORS, str(federation.worker.folder), str(engine.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        endpoint = Endpoint("lan", "127.0.0.1", int(process.stdout.readline()))
        with half_open(endpoint, 300), call(federation, endpoint) as connected:
            assert echoes(connected)
        process.communicate()
    assert process.returncode == 0


@pytest.mark.slow
def test_a_caller_gets_through_between_ten_thousand_half_open_connections(
    federation: Federation, engine: Engine
) -> None:
    with (
        federation.proxy(engine.path) as (_, endpoint),
        call(federation, endpoint) as before,
        half_open(endpoint, 10_000),
        call(federation, endpoint) as during,
    ):
        assert echoes(before)
        assert echoes(during)


def test_callers_that_vanish_leave_nothing_behind(federation: Federation, engine: Engine) -> None:
    with federation.proxy(engine.path) as (proxy, endpoint):
        for _ in range(30):
            connected = call(federation, endpoint)
            # a reset instead of an end, as when a machine loses its network
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connected.close()
        for _ in range(30):
            assert federation.event("ended").sentence
        assert proxy.connections == 0


def test_a_silent_connection_is_ended(federation: Federation, engine: Engine) -> None:
    with (
        federation.proxy(engine.path, limits=Limits(idle_s=0.2)) as (_, endpoint),
        call(federation, endpoint) as connected,
    ):
        connected.settimeout(DEADLINE_S)
        with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
            connected.recv(1)
        assert "nothing was sent" in federation.event("ended").sentence


def test_bytes_are_counted(federation: Federation, engine: Engine) -> None:
    with federation.proxy(engine.path) as (_, endpoint):
        with call(federation, endpoint) as connected:
            connected.sendall(bytes(1000))
            received = 0
            while received < 1000:
                received += len(connected.recv(1000))
        event = federation.event("ended")
    assert (event.in_bytes, event.out_bytes) == (1000, 1000)
