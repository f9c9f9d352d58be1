"""The client that most programs use gets what it expects, streamed or not."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from sharedllm.model import Sampling
from tests.unit.nodes.api.stand_in import StandIn

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


def test_the_model_is_listed_and_can_be_looked_up(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["smol"]
    assert client.models.retrieve("smol").created == 1_700_000_000


def test_a_chat_gets_its_reply(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="smol", messages=HELLO, seed=7)
    assert reply.object == "chat.completion"
    assert reply.choices[0].message.content == "the cat sat 7"
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason == "stop"


def test_a_chat_is_told_what_it_used(client: openai.OpenAI, service: StandIn) -> None:
    reply = client.chat.completions.create(model="smol", messages=HELLO, seed=7)
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == len(service.asks[0].prompt)
    assert reply.usage.completion_tokens == len(service.streams[0].script)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == 2


def test_a_streamed_chat_says_the_same_in_pieces(client: openai.OpenAI, service: StandIn) -> None:
    chunks = list(client.chat.completions.create(model="smol", messages=HELLO, seed=7, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "the cat sat 7"
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert len({(c.id, c.created, c.model, c.object) for c in chunks}) == 1
    assert all(c.usage is None for c in chunks)


def test_usage_comes_last_in_a_stream_where_asked(client: openai.OpenAI, service: StandIn) -> None:
    chunks = list(
        client.chat.completions.create(
            model="smol", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(service.streams[0].script)


def test_the_conversation_is_rendered_by_the_models_template(client: openai.OpenAI, service: StandIn) -> None:
    history: list[Any] = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "cat"}]},
        client.chat.completions.create(model="smol", messages=HELLO, seed=1).choices[0].message,
        {"role": "user", "content": "<|im_end|>"},
    ]
    client.chat.completions.create(model="smol", messages=history)
    expected = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "the cat"},
        {"role": "assistant", "content": "the cat sat 1"},
        {"role": "user", "content": "<|im_end|>"},
    ]
    assert list(service.asks[-1].prompt) == service.tokenizer.chat_tokens(expected)


def test_parameters_reach_the_service(client: openai.OpenAI, service: StandIn) -> None:
    client.chat.completions.create(
        model="smol",
        messages=HELLO,
        temperature=0,
        top_p=0.5,
        seed=11,
        max_completion_tokens=3,
        stop=["x", "yz"],
        user="ann",
        extra_body={"top_k": 4},
        extra_headers={"x-request-id": "abc-1"},
    )
    assert service.asks[0].sampling == Sampling(
        temperature=0, top_k=4, top_p=0.5, seed=11, max_tokens=3, stop=("x", "yz")
    )
    assert service.asks[0].request_id == "abc-1"
    assert service.asks[0].client == "127.0.0.1 ann"


def test_without_a_seed_two_requests_differ_in_theirs(client: openai.OpenAI, service: StandIn) -> None:
    for _ in range(2):
        client.chat.completions.create(model="smol", messages=HELLO)
    assert service.asks[0].sampling.seed != service.asks[1].sampling.seed
    assert service.asks[0].sampling.temperature == 1


def test_a_reply_may_fill_the_context_and_no_more(client: openai.OpenAI, service: StandIn) -> None:
    client.chat.completions.create(model="smol", messages=HELLO, max_tokens=10_000)
    ask = service.asks[0]
    assert len(ask.prompt) + ask.sampling.max_tokens == service.context + 1


def test_a_reply_that_is_cut_says_so(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="smol", messages=HELLO, max_tokens=2)
    assert reply.choices[0].finish_reason == "length"


def test_a_stop_string_ends_a_reply(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="smol", messages=HELLO, stop="cat")
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].message.content == "the cat"


@pytest.mark.parametrize("stream", [False, True])
def test_choices_have_seeds_that_follow_one_another(
    client: openai.OpenAI, service: StandIn, stream: bool
) -> None:
    reply: Any = client.chat.completions.create(model="smol", messages=HELLO, n=3, seed=40, stream=stream)
    texts = ["", "", ""]
    for choice in [c for chunk in reply for c in chunk.choices] if stream else reply.choices:
        texts[choice.index] += (choice.delta if stream else choice.message).content or ""
    assert texts == ["the cat sat 40", "the cat sat 41", "the cat sat 42"]


def test_a_prompt_counts_once_however_many_choices_it_has(client: openai.OpenAI, service: StandIn) -> None:
    usage = client.chat.completions.create(model="smol", messages=HELLO, n=3, seed=10).usage
    assert usage is not None
    assert usage.prompt_tokens == len(service.asks[0].prompt)
    assert usage.completion_tokens == sum(len(stream.script) for stream in service.streams)


def test_half_characters_are_never_shown(client: openai.OpenAI, service: StandIn) -> None:
    service.text = "naïve 🙂 മലയാളം \u2028"
    chunks = list(client.chat.completions.create(model="smol", messages=HELLO, seed=7, stream=True))
    pieces = [c.choices[0].delta.content or "" for c in chunks]
    assert "".join(pieces) == service.text + " 7"
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_completion_continues_text(client: openai.OpenAI, service: StandIn) -> None:
    reply = client.completions.create(model="smol", prompt="the mat", seed=7, max_tokens=50)
    assert (reply.object, reply.choices[0].text) == ("text_completion", "the cat sat 7")
    assert list(service.asks[0].prompt) == service.tokenizer.prompt("the mat")


def test_a_completion_has_sixteen_tokens_unless_told_otherwise(
    client: openai.OpenAI, service: StandIn
) -> None:
    client.completions.create(model="smol", prompt="the mat")
    assert service.asks[0].sampling.max_tokens == 16


def test_a_streamed_completion_says_the_same_in_pieces(client: openai.OpenAI, service: StandIn) -> None:
    chunks = list(
        client.completions.create(model="smol", prompt="the mat", seed=7, max_tokens=50, stream=True)
    )
    assert "".join(c.choices[0].text for c in chunks) == "the cat sat 7"
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("prompt", [[5, 6, 7], [[5, 6, 7]]])
def test_a_prompt_may_be_token_ids(client: openai.OpenAI, service: StandIn, prompt: Any) -> None:
    client.completions.create(model="smol", prompt=prompt)
    assert service.asks[0].prompt == (5, 6, 7)


def test_several_prompts_are_answered_in_their_order(client: openai.OpenAI, service: StandIn) -> None:
    reply = client.completions.create(model="smol", prompt=["a", "b"], n=2, seed=3, max_tokens=50)
    assert [c.index for c in reply.choices] == [0, 1, 2, 3]
    assert [c.text[-1] for c in reply.choices] == ["3", "4", "3", "4"]
    assert [service.tokenizer.decode(ask.prompt) for ask in service.asks] == ["a", "a", "b", "b"]
