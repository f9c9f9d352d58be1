"""The bytes of a stream are what every reader of server-sent events expects."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.api import answer
from tests.unit.nodes.api.stand_in import StandIn

ASK = {"messages": [{"role": "user", "content": "hello"}], "stream": True, "seed": 7}


def events(text: str) -> list[Any]:
    """The JSON of each event, once its form has been checked."""
    assert text.endswith("\n\n")
    blocks = text.removesuffix("\n\n").split("\n\n")
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    assert blocks[-1] == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]


def test_each_event_is_one_line_of_data_and_the_last_says_done(web: httpx.Client, service: StandIn) -> None:
    answered = web.post("/v1/chat/completions", json=ASK)
    assert answered.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answered.headers["cache-control"] == "no-store"
    assert len(events(answered.text)) == 1 + len(service.streams[0].script) + 1


def test_each_token_can_be_told_from_its_chunk(web: httpx.Client, service: StandIn) -> None:
    chunks = events(web.post("/v1/chat/completions", json=ASK).text)
    assert [chunk["sharedllm"]["token"] for chunk in chunks[1:-1]] == service.streams[0].script
    assert chunks[1]["sharedllm"] == {"token": service.streams[0].script[0], "logprob": -0.5, "ms": 1.5}


def test_the_last_chunk_tells_of_failovers(web: httpx.Client, service: StandIn) -> None:
    service.failovers = 2
    assert events(web.post("/v1/chat/completions", json=ASK).text)[-1]["sharedllm"]["failovers"] == 2


def test_a_whole_reply_tells_its_tokens(web: httpx.Client, service: StandIn) -> None:
    whole = web.post("/v1/chat/completions", json=ASK | {"stream": False}).json()
    assert whole["choices"][0]["sharedllm"] == {
        "tokens": service.streams[0].script,
        "failovers": 0,
        "receipt": whole["id"] + "-0",
    }


def test_chunks_say_null_for_usage_where_it_comes_last(web: httpx.Client) -> None:
    ask = ASK | {"stream_options": {"include_usage": True}}
    chunks = events(web.post("/v1/chat/completions", json=ask).text)
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}


def test_line_breaks_in_the_text_do_not_break_an_event(web: httpx.Client, service: StandIn) -> None:
    service.text = "a\n\ndata: b\r\n\u2028c"
    chunks = events(web.post("/v1/chat/completions", json=ASK).text)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == service.text + " 7"


def test_an_error_is_the_last_event_before_done(web: httpx.Client, service: StandIn) -> None:
    service.fail_at, service.failure = 2, SharedLLMError("Both workers are gone.")
    chunks = events(web.post("/v1/chat/completions", json=ASK).text)
    assert chunks[-1] == {
        "error": {
            "message": "Both workers are gone.",
            "type": "service_unavailable",
            "param": None,
            "code": "pipeline_failed",
        }
    }


@pytest.mark.parametrize("hold_at", [0, 2])
def test_a_silent_stream_is_kept_alive(
    web: httpx.Client, service: StandIn, monkeypatch: pytest.MonkeyPatch, hold_at: int
) -> None:
    monkeypatch.setattr(answer, "_BEAT_S", 0.01)
    service.hold_at = hold_at
    with web.stream("POST", "/v1/chat/completions", json=ASK) as answered:
        parts = answered.iter_text()
        seen = ""
        while ": still here\n\n" not in seen:
            seen += next(parts)
        service.streams[0].release()
        seen += "".join(parts)
    assert events(seen.replace(": still here\n\n", ""))[-1]["choices"][0]["finish_reason"] == "stop"
