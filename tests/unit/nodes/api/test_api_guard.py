"""Pages of other sites, names that are not this server's, and callers without the key are kept out."""

from __future__ import annotations

import hmac
import logging
import re
import socket
from collections.abc import Iterator

import httpx
import openai
import pytest

from sharedllm.nodes.api import create_app, guard, make_server
from sharedllm.nodes.operations import BadSetting
from tests.unit.nodes.api.stand_in import DEADLINE_S, Running, StandIn, running

KEY = "a-key-of-enough-letters"
ASK = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def guarded(stand_in: StandIn) -> Iterator[Running]:
    with running(stand_in, api_key=KEY, allowed_hosts=["llm.example"]) as started:
        yield started


@pytest.fixture(scope="module")
def outside_client(guarded: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url, timeout=DEADLINE_S) as made:
        yield made


@pytest.fixture
def outside(outside_client: httpx.Client, service: StandIn) -> httpx.Client:
    return outside_client


@pytest.mark.parametrize("host", ["localhost", "localhost:8421", "127.0.0.1:1", "LOCALHOST.", "[::1]:8421"])
def test_names_of_this_machine_are_answered_to(web: httpx.Client, host: str) -> None:
    assert web.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "192.168.1.5", "localhost.evil.example", "", "*", "[", "[x]"],
)
def test_a_name_that_was_pointed_here_is_refused(web: httpx.Client, host: str) -> None:
    answer = web.get("/v1/models", headers={"host": host})
    assert answer.status_code == 421
    assert "add the name to the allowed hosts" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/", "/web/api.js", "/v1/sharedllm/state", "/metrics"])
def test_no_path_answers_to_another_name(web: httpx.Client, path: str) -> None:
    assert web.get(path, headers={"host": "evil.example"}).status_code == 421


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_are_answered_under_any_name(web: httpx.Client, path: str) -> None:
    assert web.get(path, headers={"host": "10.1.2.3"}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "http://localhost",
        "http://127.0.0.1:1",
        "http://localhost:1@evil.example",
    ],
)
def test_a_page_of_another_site_is_refused(web: httpx.Client, service: StandIn, origin: str) -> None:
    answer = web.post("/v1/chat/completions", json=ASK, headers={"origin": origin})
    assert answer.status_code == 403
    assert not service.asks


def test_a_preflight_of_another_site_is_refused(web: httpx.Client) -> None:
    answer = web.options("/v1/chat/completions", headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_the_servers_own_page_is_served(web: httpx.Client, server: Running) -> None:
    assert web.post("/v1/chat/completions", json=ASK, headers={"origin": server.url}).status_code == 200


def test_with_the_key_the_client_is_served(guarded: Running, service: StandIn) -> None:
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=KEY, max_retries=0) as client:
        assert client.models.list().data


def test_with_another_key_the_client_is_refused(guarded: Running, service: StandIn) -> None:
    with (
        openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=KEY + "x", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="missing or wrong") as error,
    ):
        client.models.list()
    assert KEY not in error.value.response.text
    assert error.value.response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", f"Basic {KEY}", KEY, b"Bearer \xff\xfe", f"Bearer {KEY[:-1]}"]
)
def test_anything_but_the_key_is_refused(outside: httpx.Client, given: str | bytes | None) -> None:
    headers = [] if given is None else [("authorization", given)]
    assert outside.get("/v1/models", headers=headers).status_code == 401  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/v1/sharedllm/state", "/v1/sharedllm/events", "/metrics", "/v1/nothing"])
def test_every_path_needs_the_key(outside: httpx.Client, path: str) -> None:
    assert outside.get(path).status_code == 401


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz"])
def test_the_page_and_the_probes_need_no_key(outside: httpx.Client, path: str) -> None:
    assert outside.get(path).status_code == 200


@pytest.mark.parametrize("host", ["llm.example", "LLM.example:443", "192.168.1.5:8421"])
def test_with_a_key_allowed_names_and_addresses_are_answered_to(outside: httpx.Client, host: str) -> None:
    headers = {"host": host, "authorization": f"Bearer {KEY}"}
    assert outside.get("/v1/models", headers=headers).status_code == 200


def test_with_a_key_other_names_are_still_refused(outside: httpx.Client) -> None:
    headers = {"host": "evil.example", "authorization": f"Bearer {KEY}"}
    assert outside.get("/v1/models", headers=headers).status_code == 421


def test_keys_are_compared_in_constant_time(outside: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    class Spy:
        @staticmethod
        def compare_digest(a: bytes, b: bytes) -> bool:
            compared.append((a, b))
            return hmac.compare_digest(a, b)

    monkeypatch.setattr(guard, "hmac", Spy)
    for key in ("short", "x" * 1000, KEY):
        outside.get("/v1/models", headers={"authorization": f"Bearer {key}"})
    assert {(len(a), len(b)) for a, b in compared} == {(32, 32)}
    assert len(compared) == 3


def test_the_key_is_in_no_log(
    outside: httpx.Client, service: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="sharedllm")
    caplog.set_level(logging.DEBUG, logger="uvicorn")
    service.fail_at = 0
    headers = {"authorization": f"Bearer {KEY}"}
    assert outside.post("/v1/completions", json={"prompt": "a"}, headers=headers).status_code == 500
    assert caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("path", ["/", "/v1/models", "/nothing", "/web/nothing.js"])
def test_every_answer_forbids_what_the_page_does_not_need(web: httpx.Client, path: str) -> None:
    headers = web.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|unsafe|\*", policy)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers


def test_a_request_id_comes_back(web: httpx.Client) -> None:
    assert web.get("/v1/models", headers={"x-request-id": "my-id.1"}).headers["x-request-id"] == "my-id.1"


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", 'a"b', "<script>"])
def test_an_unfit_request_id_is_replaced(web: httpx.Client, given: str) -> None:
    returned = web.get("/v1/models", headers={"x-request-id": given}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", returned)


def test_a_refusal_has_a_request_id_too(web: httpx.Client) -> None:
    answer = web.get("/v1/models", headers={"host": "evil.example", "x-request-id": "mine"})
    assert answer.headers["x-request-id"] == "mine"


def test_a_websocket_gets_an_ordinary_answer(server: Running, service: StandIn) -> None:
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as made:
        made.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n\r\n"
        )
        assert made.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("key", ["", "short"])
def test_a_key_that_can_be_guessed_is_refused(stand_in: StandIn, key: str) -> None:
    with pytest.raises(BadSetting, match="expected at least 16"):
        create_app(stand_in, api_key=key)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "llm.example"])
def test_other_machines_are_let_in_only_with_a_key(stand_in: StandIn, host: str) -> None:
    with pytest.raises(BadSetting, match="no API key is set"):
        make_server(create_app(stand_in), host=host)
