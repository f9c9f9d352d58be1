"""The server is on time with those who dawdle, and with its own end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading

import httpx
import pytest

from sharedllm.nodes.api import create_app, listener, make_server
from sharedllm.nodes.operations import PortTaken
from tests.unit.nodes.api.stand_in import DEADLINE_S, Running, StandIn, running

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


def connect(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), DEADLINE_S)


def is_closed(waiting: socket.socket) -> bool:
    """Whether the other side closes the connection without a word."""
    try:
        return waiting.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("sent", [b"", b"G", HEAD])
def test_an_unfinished_head_is_not_waited_for(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(listener, "HEAD_S", 0.05)
    with running(stand_in) as server, connect(server) as slow:
        slow.sendall(sent)
        assert is_closed(slow)


def test_an_unfinished_second_head_is_not_waited_for(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(stand_in) as server, connect(server) as slow:
        slow.sendall(HEAD + b"\r\n")
        assert slow.recv(12) == b"HTTP/1.1 200"
        monkeypatch.setattr(listener, "HEAD_S", 0.05)
        slow.sendall(HEAD + b"\r\n" + HEAD)
        received = b""
        while data := slow.recv(65536):
            received += data
        assert received.count(b"HTTP/1.1 200") == 1


def test_a_request_may_take_longer_than_its_head(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEAD_S", 0.2)
    stand_in.reset()
    stand_in.hold_at = 0
    done: list[int] = []

    with running(stand_in) as server, connect(server) as idle:
        ask = {"prompt": "a"}
        asker = threading.Thread(
            target=lambda: done.append(httpx.post(f"{server.url}/v1/completions", json=ask).status_code)
        )
        asker.start()
        stand_in.wait_until_held()
        with connect(server) as later:
            assert is_closed(idle)
            assert is_closed(later)  # a whole HEAD_S after the request began
        stand_in.streams[0].release()
        asker.join(DEADLINE_S)
    assert done == [200]


def test_the_oldest_that_waits_goes_first(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_WAITING", 20)
    with running(stand_in) as server, contextlib.ExitStack() as held:
        waiting = [held.enter_context(connect(server)) for _ in range(25)]
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert all(is_closed(one) for one in waiting[:5])
        waiting[-1].sendall(HEAD + b"\r\n")
        assert waiting[-1].recv(12) == b"HTTP/1.1 200"


def test_the_end_of_the_server_ends_the_watching(stand_in: StandIn) -> None:
    with (
        running(stand_in, drain_s=60) as server,
        httpx.stream("GET", f"{server.url}/v1/sharedllm/events") as watching,
    ):
        lines = watching.iter_lines()
        next(lines)
        server.server.should_exit = True
        list(lines)
        server.thread.join(DEADLINE_S)
        assert not server.thread.is_alive()


def test_the_end_of_the_server_waits_for_generations(stand_in: StandIn) -> None:
    stand_in.reset()
    stand_in.hold_at = 1
    ask = {"prompt": "a", "seed": 7, "max_tokens": 50}
    texts: list[str] = []
    with running(stand_in, drain_s=60) as server:
        asker = threading.Thread(
            target=lambda: texts.append(
                httpx.post(f"{server.url}/v1/completions", json=ask).json()["choices"][0]["text"]
            )
        )
        asker.start()
        stand_in.wait_until_held()
        server.server.should_exit = True
        stand_in.streams[0].release()
        asker.join(DEADLINE_S)
    assert texts == ["the cat sat 7"]


def test_the_end_of_the_server_does_not_wait_for_ever(stand_in: StandIn) -> None:
    stand_in.reset()
    stand_in.hold_at = 1
    with running(stand_in, drain_s=1) as server, connect(server) as client:
        body = b'{"prompt":"a"}'
        client.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        stand_in.wait_until_held()
    assert stand_in.streams[0].cancelled.is_set()


def test_a_taken_port_is_a_sentence(stand_in: StandIn) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"Port {port} of 127.0.0.1 can't be listened on"):
            make_server(create_app(stand_in), port=port)


def test_a_token_is_sent_at_once(stand_in: StandIn) -> None:
    with running(stand_in) as server, httpx.Client(base_url=server.url) as client:
        client.get("/healthz")
        (connection,) = server.server.server_state.connections
        made = connection.transport.get_extra_info("socket")
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_signal_ends_the_server_and_lets_its_caller_end_the_rest(stand_in: StandIn) -> None:
    before = signal.getsignal(signal.SIGTERM)
    server = make_server(create_app(stand_in), ready=lambda _: os.kill(os.getpid(), signal.SIGTERM))
    server.run()
    assert signal.getsignal(signal.SIGTERM) is before
