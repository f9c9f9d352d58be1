"""What is wrong with a request is refused with a sentence that names it, before anything is generated."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from tests.unit.nodes.api.stand_in import Running, StandIn

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
JSON = {"content-type": "application/json"}


def refused(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, once its form has been checked."""
    error: dict[str, Any] = answer.json()["error"]
    assert answer.json().keys() == {"error"}
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"][0].isupper() or error["param"]
    assert error["message"].endswith(".")
    return error


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"temperature": "hot"}, 'temperature is "hot"; expected a number from 0 to 2'),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": True}, "temperature is true"),
        ({"top_p": 0}, "top_p is 0; expected a number above 0 and at most 1"),
        ({"n": 33}, "n is 33; expected a whole number from 1 to 32"),
        ({"n": 1.0}, "n is 1.0"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"max_tokens": 0}, "max_tokens is 0; expected a whole number ≥ 1"),
        ({"max_completion_tokens": "3"}, 'max_completion_tokens is "3"'),
        ({"stop": ""}, 'stop is ""'),
        ({"stop": ["x"] * 17}, "stop is"),
        ({"stop": [3]}, r"stop is \[3\]"),
        ({"stop": 3}, "stop is 3"),
        ({"stream": "yes"}, 'stream is "yes"; expected true or false'),
        ({"stream_options": {"colour": True}}, "stream_options is"),
        ({"logprobs": 3}, "logprobs is 3; expected true or false"),
        ({"top_logprobs": 21}, "top_logprobs is 21; expected a whole number from 0 to 20"),
        ({"user": ["x"]}, "user is"),
        ({"messages": []}, r"messages is \[\]; expected a list of 1 to 10,000 messages"),
        ({"messages": "hello"}, 'messages is "hello"'),
        ({"messages": ["hello"]}, r'messages\[0\] is "hello"'),
        ({"messages": [{"role": "tool", "content": "x"}]}, r'messages\[0\].role is "tool"'),
        ({"messages": [*HELLO, {"role": "user", "content": 3}]}, r"messages\[1\].content is 3"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content is null"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}, "tool_calls is not supported"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 'of type "image_url"'),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, r"content\[0\] is"),
        ({"temprature": 1}, "temprature is not a parameter of this request"),
        ({"tools": [{"type": "function"}]}, "tools is .* which this server does not support"),
        ({"response_format": {"type": "json_object"}}, "response_format is"),
        ({"logit_bias": {"5": 1}}, "logit_bias is"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is 0.5"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_a_wrong_parameter_is_named(
    client: openai.OpenAI, service: StandIn, wrong: dict[str, Any], expected: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=expected) as error:
        client.chat.completions.create(model="smol", messages=HELLO, extra_body=wrong)
    assert str(error.value.param).startswith(next(iter(wrong)))
    assert not service.asks


def test_values_that_change_nothing_are_let_through(client: openai.OpenAI) -> None:
    neutral: dict[str, Any] = {
        "tools": [],
        "response_format": {"type": "text"},
        "frequency_penalty": 0,
        "logit_bias": None,
        "service_tier": "auto",
    }
    client.chat.completions.create(model="smol", messages=HELLO, **neutral)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (None, "prompt is null"),
        (3, "prompt is 3"),
        ([5, "x"], 'prompt is "x"; expected token ids from 0 to'),
        ([5, 10**6], "prompt is 1000000"),
        ([-1], "prompt is -1"),
        ([True], "prompt is true"),
        ([["x"]], 'prompt is "x"'),
        ([{}], "prompt is {}"),
        ([], "prompt is empty"),
        ("", "prompt is empty"),
        (["x"] * 33, "33 prompts with 1 choices each"),
    ],
    ids=str,
)
def test_a_wrong_prompt_is_named(web: httpx.Client, service: StandIn, prompt: Any, expected: str) -> None:
    answer = web.post("/v1/completions", json={"prompt": prompt})
    assert answer.status_code == 400
    assert expected in refused(answer)["message"]
    assert not service.asks


def test_echo_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="echo is true"):
        client.completions.create(model="smol", prompt="a", echo=True)


def test_a_prompt_beyond_the_context_is_refused(client: openai.OpenAI, service: StandIn) -> None:
    with pytest.raises(openai.BadRequestError, match=r"this model's context is 256; shorten it by") as error:
        client.chat.completions.create(model="smol", messages=[{"role": "user", "content": "the cat " * 999}])
    assert error.value.code == "context_length_exceeded"
    assert not service.asks


def test_another_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'gpt-9' is not served here; this server has 'smol'"):
        client.chat.completions.create(model="gpt-9", messages=HELLO)


def test_another_path_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="POST /v1/embeddings does not exist here"):
        client.embeddings.create(model="smol", input="a")


def test_another_method_is_not_allowed(web: httpx.Client) -> None:
    answer = web.get("/v1/chat/completions")
    assert answer.status_code == 405
    assert refused(answer)["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b'{"seed": NaN}',
        b'{"user": "\\ud800"}',
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"a":' * 50_000,
        b'{"seed": ' + b"9" * 10_000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_not_one_json_object_is_refused(web: httpx.Client, body: bytes) -> None:
    answer = web.post("/v1/chat/completions", content=body, headers=JSON)
    assert answer.status_code == 400
    assert refused(answer)["code"] == "invalid_json"


def test_a_missing_parameter_is_named(web: httpx.Client) -> None:
    assert refused(web.post("/v1/chat/completions", json={}))["message"].startswith("messages is missing")


def test_a_form_is_refused(web: httpx.Client) -> None:
    answer = web.post("/v1/chat/completions", content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert "expected application/json" in refused(answer)["message"]


def test_a_prompt_of_ten_megabytes_is_refused_with_a_sentence(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="larger than 2,097,152 bytes") as error:
        client.chat.completions.create(model="smol", messages=[{"role": "user", "content": "x" * 10**7}])
    assert error.value.status_code == 413


def test_a_body_of_unstated_length_is_counted_as_it_comes(web: httpx.Client) -> None:
    answer = web.post("/v1/completions", content=(b"x" * 65536 for _ in range(160)), headers=JSON)
    assert answer.status_code == 413


def test_a_long_list_of_wrong_things_is_one_short_sentence(web: httpx.Client) -> None:
    answer = web.post("/v1/completions", json={"prompt": ["x"] * 200_000, "stop": [1] * 200_000})
    assert answer.status_code == 400
    assert len(answer.content) < 500


def test_a_million_lists_are_refused_before_they_are_made(web: httpx.Client) -> None:
    answer = web.post("/v1/completions", content=b"[" + b"[]," * 600_000, headers=JSON)
    assert answer.status_code == 413
    assert "more than 50,000 opening brackets" in refused(answer)["message"]


def test_an_unknown_parameter_with_a_long_name_is_one_short_sentence(web: httpx.Client) -> None:
    answer = web.post("/v1/completions", json={"x" * 10**6: 1})
    assert len(answer.content) < 600


def test_the_next_request_on_the_same_connection_is_served(web: httpx.Client, server: Running) -> None:
    web.post("/v1/completions", content=b"{", headers=JSON)
    answer = web.post("/v1/completions", json={"prompt": "a"})
    assert answer.status_code == 200
