"""A client that leaves, at any moment, takes with it all that it asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.unit.nodes.api.stand_in import DEADLINE_S, Running, StandIn, running

ASK = {"messages": [{"role": "user", "content": "hello"}], "seed": 7}


def request(stream: bool = True) -> bytes:
    body = json.dumps(ASK | {"stream": stream}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextlib.contextmanager
def connected(server: Running, abruptly: bool = False) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as made:
        if abruptly:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        yield made


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("hold_at", [0, 2])
@pytest.mark.parametrize("abruptly", [False, True])
def test_a_client_that_leaves_cancels_its_request(
    server: Running, service: StandIn, stream: bool, hold_at: int, abruptly: bool
) -> None:
    service.hold_at = hold_at
    with connected(server, abruptly) as leaving:
        leaving.sendall(request(stream))
        service.wait_until_held()
    assert service.streams[0].cancelled.wait(DEADLINE_S)


def test_a_reader_that_closes_a_stream_cancels_it(client: openai.OpenAI, service: StandIn) -> None:
    service.hold_at = 2
    with client.chat.completions.create(model="smol", messages=ASK["messages"], stream=True) as chunks:  # type: ignore[call-overload]
        next(iter(chunks))
        service.wait_until_held()
    assert service.streams[0].cancelled.wait(DEADLINE_S)


def test_a_client_that_leaves_cancels_every_choice(server: Running, service: StandIn) -> None:
    service.hold_at = 1
    with (
        contextlib.suppress(httpx.ReadTimeout),
        httpx.Client(base_url=server.url, timeout=httpx.Timeout(DEADLINE_S, read=0.2)) as web,
    ):
        web.post("/v1/chat/completions", json=ASK | {"n": 3})
    assert all(stream.cancelled.wait(DEADLINE_S) for stream in service.streams)
    assert len(service.streams) == 3


def test_another_clients_stream_goes_on(server: Running, service: StandIn, client: openai.OpenAI) -> None:
    service.hold_at = 2
    chunks = client.chat.completions.create(model="smol", messages=ASK["messages"], seed=7, stream=True)  # type: ignore[call-overload]
    service.wait_until_held()
    with connected(server) as leaving:
        leaving.sendall(request())
        service.wait_until_held()
    assert service.streams[1].cancelled.wait(DEADLINE_S)
    service.streams[0].release()
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "the cat sat 7"


def test_a_complete_request_is_never_cancelled(client: openai.OpenAI, service: StandIn) -> None:
    client.chat.completions.create(model="smol", messages=ASK["messages"])  # type: ignore[call-overload]
    assert not service.streams[0].cancelled.is_set()


async def tasks() -> int:
    return len(asyncio.all_tasks())


def test_nobody_goes_on_listening_to_a_stream_that_does_not_heed_its_end() -> None:
    service = StandIn()
    service.hold_at, service.is_deaf = 1, True
    with running(service) as server:
        loop = server.server.servers[0].get_loop()
        before = asyncio.run_coroutine_threadsafe(tasks(), loop).result(DEADLINE_S)
        with connected(server) as leaving:
            leaving.sendall(request())
            service.wait_until_held()
        server.settle()
        assert asyncio.run_coroutine_threadsafe(tasks(), loop).result(DEADLINE_S) == before


def test_a_thousand_clients_that_vanish_leave_nothing_behind() -> None:
    service = StandIn()
    with running(service) as server:
        loop = server.server.servers[0].get_loop()
        before = asyncio.run_coroutine_threadsafe(tasks(), loop).result(DEADLINE_S)
        service.hold_at = 1
        for wave in range(20):
            with contextlib.ExitStack() as clients:
                for i in range(50):
                    leaving = clients.enter_context(connected(server, abruptly=i % 2 == 0))
                    whole = request(stream=i % 3 == 0)
                    leaving.sendall(whole[: (0, 20, -5, len(whole), len(whole))[i % 5]])
                for _ in range(20 if wave % 2 else 0):  # every other wave leaves without waiting
                    service.wait_until_held()
        server.settle()
        assert not service.open
        assert asyncio.run_coroutine_threadsafe(tasks(), loop).result(DEADLINE_S) == before
        service.hold_at = -1
        assert httpx.post(f"{server.url}/v1/chat/completions", json=ASK).status_code == 200
