"""What the service refuses or fails at reaches clients as the error that they expect."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from sharedllm.errors import BadPrompt, SharedLLMError
from sharedllm.nodes.errors import Busy, DialFailed, NoPipeline
from tests.unit.nodes.api.stand_in import StandIn

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
BOTH = pytest.mark.parametrize("stream", [False, True])


@BOTH
def test_a_busy_service_says_when_to_come_back(client: openai.OpenAI, service: StandIn, stream: bool) -> None:
    service.refusal = Busy("All 8 places are taken.", retry_after_s=2.3)
    with pytest.raises(openai.RateLimitError, match="All 8 places are taken") as error:
        client.chat.completions.create(model="smol", messages=HELLO, stream=stream)
    assert error.value.response.headers["retry-after"] == "3"
    assert error.value.code == "busy"


def test_a_client_that_waits_as_told_is_served(client: openai.OpenAI, service: StandIn) -> None:
    service.refusal = Busy("All places are taken.", retry_after_s=0)
    waits = client.with_options(max_retries=1)
    waits._sleep_for_retry = lambda **_: setattr(service, "refusal", None)  # type: ignore[method-assign]
    assert waits.chat.completions.create(model="smol", messages=HELLO).choices


def test_choices_that_do_not_all_find_a_place_give_theirs_back(
    client: openai.OpenAI, service: StandIn
) -> None:
    service.refusal, service.refuse_after = Busy("All places are taken.", retry_after_s=1), 2
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="smol", messages=HELLO, n=3)
    assert [stream.cancelled.is_set() for stream in service.streams] == [True, True]


@BOTH
def test_a_model_without_a_home_says_what_is_missing(
    client: openai.OpenAI, service: StandIn, stream: bool
) -> None:
    service.refusal = NoPipeline("Layers 10 to 19 lack a home; 80 MB of memory are missing.")
    with pytest.raises(openai.InternalServerError, match="Layers 10 to 19 lack a home") as error:
        client.chat.completions.create(model="smol", messages=HELLO, stream=stream)
    assert (error.value.status_code, error.value.code) == (503, "no_pipeline")


@BOTH
def test_a_prompt_that_the_service_refuses_is_a_bad_request(
    client: openai.OpenAI, service: StandIn, stream: bool
) -> None:
    service.refusal = BadPrompt("The prompt needs more memory than there is.")
    with pytest.raises(openai.BadRequestError, match="more memory than there is"):
        client.chat.completions.create(model="smol", messages=HELLO, stream=stream)


@BOTH
def test_a_failure_before_the_first_token_has_a_status(
    client: openai.OpenAI, service: StandIn, stream: bool
) -> None:
    service.fail_at, service.failure = 0, DialFailed("No address of worker one answered.")
    with pytest.raises(openai.InternalServerError, match="No address of worker one answered") as error:
        client.chat.completions.create(model="smol", messages=HELLO, stream=stream)
    assert error.value.status_code == 503


def test_a_failure_in_mid_stream_comes_after_the_text_so_far(client: openai.OpenAI, service: StandIn) -> None:
    service.fail_at, service.failure = 2, SharedLLMError("Both workers are gone, and nobody else has room.")
    heard = []
    chunks = client.chat.completions.create(model="smol", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="Both workers are gone") as error:
        heard.extend(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert "".join(heard) == service.tokenizer.decode(service.streams[0].script[:2])
    assert error.value.code == "pipeline_failed"


def test_a_failure_of_one_choice_ends_them_all(client: openai.OpenAI, service: StandIn) -> None:
    service.fail_at, service.failure = 1, SharedLLMError("It broke.")
    with pytest.raises(openai.InternalServerError, match="It broke"):
        client.chat.completions.create(model="smol", messages=HELLO, n=3)


@BOTH
def test_a_defect_tells_its_request_and_no_detail(
    client: openai.OpenAI, service: StandIn, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    service.fail_at = 0
    with pytest.raises(openai.InternalServerError, match="defect") as error:
        client.chat.completions.create(model="smol", messages=HELLO, stream=stream)
    assert "secret detail" not in error.value.response.text
    assert str(error.value.request_id) in error.value.message
    assert "secret detail" in caplog.text


def test_a_stream_that_the_service_ends_is_not_taken_for_complete(
    client: openai.OpenAI, service: StandIn
) -> None:
    service.hold_at = 2
    chunks = client.chat.completions.create(model="smol", messages=HELLO, stream=True)
    service.wait_until_held()
    service.streams[0]._loop.call_soon_threadsafe(service.streams[0].cancel)
    with pytest.raises(openai.APIError, match="ended this request before it was complete"):
        list(chunks)


def test_a_refusal_is_in_openais_shape(web: httpx.Client, service: StandIn) -> None:
    service.refusal = NoPipeline("Layers lack a home.")
    assert web.post("/v1/completions", json={"prompt": "a"}).json() == {
        "error": {
            "message": "Layers lack a home.",
            "type": "service_unavailable",
            "param": None,
            "code": "no_pipeline",
        }
    }
