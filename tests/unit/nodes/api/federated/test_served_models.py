"""Several models behind one API: which there are, which is asked, who is responsible, and the receipt."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from sharedllm.errors import BadAdapter
from sharedllm.nodes.api import Served
from tests.unit.nodes.api.stand_in import StandIn

ASK = {"messages": [{"role": "user", "content": "hello"}], "seed": 7}
MIXTURE = Served("mixture", "mixture", ("code", "verse"), ("aa" * 32, "bb" * 32))
CODE = Served("code", "specialist", ("code",), ("aa" * 32,))


@pytest.fixture(autouse=True)
def federation(service: StandIn) -> None:
    service.known = [MIXTURE, CODE]
    service.shares = (0.25, 0.75)


def test_the_list_of_models_begins_with_the_default_and_names_members(web: httpx.Client) -> None:
    data = web.get("/v1/models").json()["data"]
    assert [(model["id"], model["sharedllm"]["members"]) for model in data] == [
        ("mixture", ["code", "verse"]),
        ("code", ["code"]),
    ]


def test_a_model_is_asked_by_its_name(web: httpx.Client, service: StandIn) -> None:
    service.shares = ()
    answer = web.post("/v1/chat/completions", json=ASK | {"model": "code"}).json()
    assert (answer["model"], service.asks[0].model) == ("code", "code")


@pytest.mark.parametrize("name", [None, "", "dummy"])
def test_whoever_names_no_model_gets_the_default(
    web: httpx.Client, service: StandIn, name: str | None
) -> None:
    assert web.post("/v1/chat/completions", json=ASK | {"model": name}).json()["model"] == "mixture"


def test_an_unknown_model_is_refused_with_the_names_of_all(web: httpx.Client) -> None:
    refused = web.post("/v1/chat/completions", json=ASK | {"model": "drama"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "'mixture', 'code'" in error["message"]


def test_an_adapter_that_does_not_fit_is_refused_with_its_own_sentence(
    web: httpx.Client, service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def served(name: str) -> Served | None:
        raise BadAdapter("The adapter me was fitted on another base.")

    monkeypatch.setattr(service, "served", served)
    refused = web.post("/v1/chat/completions", json=ASK | {"model": "me"})
    assert (refused.status_code, refused.json()["error"]["message"]) == (
        400,
        "The adapter me was fitted on another base.",
    )


def test_every_token_of_a_mixture_says_who_is_responsible(web: httpx.Client, service: StandIn) -> None:
    text = web.post("/v1/chat/completions", json=ASK | {"stream": True}).text
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert [chunk["sharedllm"]["responsibilities"] for chunk in chunks[1:-1]] == [
        {"code": 0.25, "verse": 0.75}
    ] * len(service.streams[0].script)


def test_a_whole_answer_lists_the_responsibilities_of_its_tokens(web: httpx.Client, service: StandIn) -> None:
    ours = web.post("/v1/chat/completions", json=ASK).json()["choices"][0]["sharedllm"]
    assert ours["responsibilities"] == [{"code": 0.25, "verse": 0.75}] * len(service.streams[0].script)


def test_a_receipt_comes_byte_for_byte_by_the_answers_id(web: httpx.Client, service: StandIn) -> None:
    given = web.post("/v1/chat/completions", json=ASK).json()["choices"][0]["sharedllm"]["receipt"]
    assert given == service.asks[0].receipt
    service.receipts[given] = b'{"schema":"a receipt"}'
    assert web.get(f"/v1/sharedllm/receipts/{given}").content == service.receipts[given]


def test_the_log_is_told_as_the_service_tells_it(web: httpx.Client, service: StandIn) -> None:
    service.kept_log = {"key": "node+12345678+AbC=", "size": 3, "checkpoint": "node\n3\n"}
    assert web.get("/v1/sharedllm/log").json() == service.kept_log


def test_a_server_without_a_log_says_so(web: httpx.Client) -> None:
    answer = web.get("/v1/sharedllm/log")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "This server keeps no audit log."


def test_the_last_chunk_of_a_stream_gives_the_receipts_id(web: httpx.Client, service: StandIn) -> None:
    text = web.post("/v1/completions", json={"prompt": "a", "stream": True}).text
    ids = re.findall(r'"receipt":"([^"]+)"', text)
    assert ids == [service.asks[0].receipt]


def test_every_choice_has_a_receipt_of_its_own(web: httpx.Client, service: StandIn) -> None:
    web.post("/v1/chat/completions", json=ASK | {"n": 3})
    assert len({ask.receipt for ask in service.asks}) == 3


def test_no_two_answers_share_a_receipt_even_if_the_client_repeats_its_id(
    web: httpx.Client, service: StandIn
) -> None:
    for _ in range(2):
        web.post("/v1/chat/completions", json=ASK, headers={"x-request-id": "mine"})
    assert len({ask.receipt for ask in service.asks}) == 2


def test_an_unknown_receipt_is_not_found(web: httpx.Client) -> None:
    refused = web.get("/v1/sharedllm/receipts/chatcmpl-none")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "receipt_not_found")


def test_the_clients_key_goes_with_the_request(web: httpx.Client, service: StandIn) -> None:
    web.post("/v1/chat/completions", json=ASK, headers={"x-sharedllm-client-key": "0f" * 32})
    assert service.asks[0].client_key == "0f" * 32


@pytest.mark.parametrize("key", ["0f" * 31, "0F" * 32, "key", ""])
def test_a_client_key_that_is_none_is_refused_by_name(web: httpx.Client, service: StandIn, key: str) -> None:
    refused = web.post("/v1/chat/completions", json=ASK, headers={"x-sharedllm-client-key": key})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-sharedllm-client-key")
    assert not service.asks


def test_an_explanation_is_of_the_model_that_spoke(
    web: httpx.Client, service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def explain(prompt: object, token: int, said: object = (), model: str = "") -> dict[str, object]:
        asked.append(model)
        return {}

    monkeypatch.setattr(service, "explain", explain)
    ask = {"prompt": [5], "tokens": [7], "index": 0}
    web.post("/v1/sharedllm/explain", json=ask | {"model": "code"})
    web.post("/v1/sharedllm/explain", json=ask)
    assert asked == ["code", "mixture"]
