"""huggingface_hub's client, which people use too, gets what it expects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from huggingface_hub import InferenceClient, close_session
from huggingface_hub.errors import HfHubHTTPError

from tests.unit.nodes.api.stand_in import DEADLINE_S, Running, StandIn

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def hub(server: Running, service: StandIn) -> Iterator[InferenceClient]:
    with InferenceClient(base_url=f"{server.url}/v1", api_key="unused", timeout=DEADLINE_S) as made:
        yield made
    close_session()


def test_a_chat_gets_its_reply(hub: InferenceClient) -> None:
    reply = hub.chat_completion(HELLO, seed=7, max_tokens=50, temperature=0.5, top_p=0.9)
    assert reply.choices[0].message.content == "the cat sat 7"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.completion_tokens > 0


def test_a_streamed_chat_says_the_same_in_pieces(hub: InferenceClient) -> None:
    chunks = hub.chat_completion(HELLO, seed=7, max_tokens=50, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "the cat sat 7"


def test_a_chat_has_its_log_probabilities(hub: InferenceClient) -> None:
    reply = hub.chat.completions.create(
        model="smol", messages=HELLO, seed=7, max_tokens=50, logprobs=True, top_logprobs=2
    )
    assert reply.choices[0].logprobs is not None
    assert "".join(entry.token for entry in reply.choices[0].logprobs.content) == "the cat sat 7"


def test_a_refusal_arrives_with_its_sentence(hub: InferenceClient) -> None:
    with pytest.raises(HfHubHTTPError, match="temperature is 9"):
        hub.chat_completion(HELLO, temperature=9)
