"""Probes are answered truly and briefly, whatever the clients do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from sharedllm.nodes.operations import Health, PortTaken, health, metrics


@pytest.fixture
def state() -> dict[str, object]:
    return {"ready": False, "sentence": "Layers 0 to 9 have no home."}


@pytest.fixture
def server(state: dict[str, object]) -> Iterator[Health]:
    with Health(lambda: (bool(state["ready"]), str(state["sentence"]))) as running:
        yield running


def test_a_running_process_is_healthy(server: Health) -> None:
    assert httpx.get(server.url + "/healthz").status_code == 200


def test_a_role_that_is_not_ready_says_why(server: Health) -> None:
    answer = httpx.get(server.url + "/readyz")
    assert (answer.status_code, answer.json()) == (
        503,
        {"ok": False, "sentence": "Layers 0 to 9 have no home."},
    )


def test_readiness_is_asked_each_time(server: Health, state: dict[str, object]) -> None:
    state.update(ready=True, sentence="A token went through all 30 layers.")
    assert httpx.get(server.url + "/readyz").status_code == 200


def test_metrics_are_in_the_text_format_of_prometheus(server: Health) -> None:
    answer = httpx.get(server.url + "/metrics")
    assert answer.headers["content-type"] == metrics.CONTENT_TYPE
    assert "\nsharedllm_proxy_handshakes_total 0.0\n" in answer.text


def test_figures_are_collected_when_they_are_asked_for() -> None:
    with Health(lambda: (True, ""), collect=lambda: metrics.kv_bytes.set(1234)) as running:
        assert "\nsharedllm_kv_bytes 1234.0\n" in httpx.get(running.url + "/metrics").text
    metrics.kv_bytes.set(0)


def test_an_unknown_path_is_a_sentence(server: Health) -> None:
    answer = httpx.get(server.url + "/secrets")
    assert answer.status_code == 404
    assert "/readyz" in answer.json()["sentence"]


def test_a_probe_that_fails_does_not_end_the_server(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> tuple[bool, str]:
        raise RuntimeError("no such thing")

    with Health(fail) as running:
        assert httpx.get(running.url + "/readyz").status_code == 500
        assert httpx.get(running.url + "/healthz").status_code == 200
    assert "no such thing" in caplog.text


def test_a_client_that_never_finishes_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_CLIENT_S", 0.05)
    with Health(lambda: (True, "")) as running:
        address = urlsplit(running.url)
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as slow:
            slow.sendall(b"GET /healthz HT")
            assert slow.recv(1) == b""


def test_clients_beyond_the_limit_are_closed_and_the_rest_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_MAX_CLIENTS", 1)
    with Health(lambda: (True, "")) as running:
        address = urlsplit(running.url)
        place = (address.hostname or "", address.port or 0)
        with socket.create_connection(place, timeout=10) as first:
            first.sendall(b"GET /healthz HTTP/1.1\r\n")
            with socket.create_connection(place, timeout=10) as second:
                assert _closed(second)
            first.sendall(b"\r\n")
            assert first.recv(64).startswith(b"HTTP/1.0 200")


def _closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_taken_port_is_a_sentence_that_names_it() -> None:
    with Health(lambda: (True, "")) as running:
        port = urlsplit(running.url).port or 0
        with pytest.raises(PortTaken, match=rf"Port {port} of 127\.0\.0\.1 can't be used"):
            Health(lambda: (True, ""), port=port)
