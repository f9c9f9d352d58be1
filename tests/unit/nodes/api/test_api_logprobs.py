"""Log-probabilities in both of OpenAI's shapes."""

from __future__ import annotations

import math
from typing import Any

import openai
import pytest

from tests.unit.nodes.api.stand_in import StandIn

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


def test_a_chat_has_none_unless_asked(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="smol", messages=HELLO)
    assert reply.choices[0].logprobs is None


def test_a_chat_has_one_entry_for_each_token(client: openai.OpenAI, service: StandIn) -> None:
    reply = client.chat.completions.create(
        model="smol", messages=HELLO, seed=7, logprobs=True, top_logprobs=2
    )
    assert reply.choices[0].logprobs is not None
    content = reply.choices[0].logprobs.content
    assert content is not None
    assert "".join(entry.token for entry in content) == "the cat sat 7"
    assert {entry.logprob for entry in content} == {-0.5}
    assert bytes(b for entry in content for b in entry.bytes or []) == b"the cat sat 7"
    assert [len(entry.top_logprobs) for entry in content] == [2] * len(content)
    assert content[0].top_logprobs[1].token == service.tokenizer.decode([6])


def test_a_streamed_chat_has_them_with_each_token(client: openai.OpenAI, service: StandIn) -> None:
    chunks = client.chat.completions.create(
        model="smol", messages=HELLO, seed=7, stream=True, logprobs=True, top_logprobs=1
    )
    entries = [
        entry for c in chunks if c.choices[0].logprobs for entry in c.choices[0].logprobs.content or []
    ]
    assert "".join(entry.token for entry in entries) == "the cat sat 7"
    assert service.asks[0].top_logprobs == 1


def test_half_a_character_has_no_bytes(client: openai.OpenAI, service: StandIn) -> None:
    service.text = "🙂"
    reply = client.chat.completions.create(model="smol", messages=HELLO, logprobs=True)
    assert reply.choices[0].logprobs is not None
    assert (reply.choices[0].logprobs.content or [])[0].bytes is None


@pytest.mark.parametrize("impossible", [-math.inf, math.nan])
def test_an_impossible_token_is_still_json(
    client: openai.OpenAI, service: StandIn, impossible: float
) -> None:
    service.logprob = impossible
    reply = client.chat.completions.create(model="smol", messages=HELLO, logprobs=True)
    assert reply.choices[0].logprobs is not None
    assert (reply.choices[0].logprobs.content or [])[0].logprob == -9999.0


def test_alternatives_without_logprobs_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="set logprobs to true"):
        client.chat.completions.create(model="smol", messages=HELLO, top_logprobs=3)


def test_a_completion_has_parallel_lists(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="smol", prompt="a", seed=7, logprobs=2, max_tokens=50)
    logprobs, text = reply.choices[0].logprobs, reply.choices[0].text
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == text
    assert set(logprobs.token_logprobs or []) == {-0.5}
    for at, token in zip(logprobs.text_offset or [], logprobs.tokens or [], strict=True):
        assert text[at:].startswith(token)


def test_a_completions_alternatives_include_the_chosen_token(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="smol", prompt="a", seed=7, logprobs=2)
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    for token, top in zip(logprobs.tokens or [], logprobs.top_logprobs or [], strict=True):
        assert token in top
        assert len(top) in (2, 3)


def test_a_streamed_completions_offsets_go_on(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(model="smol", prompt="a", seed=7, logprobs=0, max_tokens=50, stream=True)
    )
    whole = client.completions.create(model="smol", prompt="a", seed=7, logprobs=0, max_tokens=50)
    assert whole.choices[0].logprobs is not None
    offsets = [at for c in chunks if (of := c.choices[0].logprobs) for at in of.text_offset or []]
    assert offsets == whole.choices[0].logprobs.text_offset
