"""What people get from a ring in which nothing goes wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from sharedllm.errors import BadPrompt
from sharedllm.model import Sampling, Tokenizer, Transformer, generate
from sharedllm.nodes.api.service import Ask
from sharedllm.wire import Codec
from tests.unit.nodes.primary.talking import CHANCE, GREEDY, ask, one, prompt
from tests.unit.nodes.primary.threads import Place, place


@pytest.fixture(scope="module")
def turning(tiny: Transformer, tokenizer: Tokenizer) -> Iterator[Place]:
    """One federation for all tests here: they leave it as they found it, but for what prompts it keeps."""
    with place(tiny, tokenizer, wire=Codec.FP32) as made:
        made.loop.start()
        yield made


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_greedy_text_is_what_the_model_says_in_one_piece(turning: Place, length: int) -> None:
    asked = prompt(length, seed=length)
    expected = generate(turning.whole, turning.primary.tokenizer, [asked], GREEDY)[0]
    told = one(turning, asked)
    assert (told.tokens, told.text) == (expected.tokens, expected.text)


@pytest.mark.parametrize("sampling", [GREEDY, CHANCE], ids=["greedy", "sampled"])
def test_eight_answers_are_the_same_bits_together_and_alone(turning: Place, sampling: Sampling) -> None:
    prompts = [prompt(40 + 23 * i, seed=100 + i) for i in range(8)]
    together = ask(turning, *prompts, sampling=sampling, top=3)
    alone = [one(turning, asked, sampling, top=3) for asked in prompts]
    heard = [[[(s.token, s.logprob, s.top) for s in told.said] for told in run] for run in (together, alone)]
    assert heard[0] == heard[1]


def test_a_prompt_that_was_asked_before_is_not_computed_again_and_answered_alike(turning: Place) -> None:
    asked = prompt(200, seed=300)
    first, second = one(turning, asked, top=1), one(turning, asked, top=1)
    assert (first.stream.cached_tokens, second.stream.cached_tokens) == (0, 192)
    assert [(s.token, s.logprob) for s in first.said] == [(s.token, s.logprob) for s in second.said]


def test_several_answers_to_one_prompt_share_its_computing(turning: Place) -> None:
    asked = prompt(150, seed=301)
    told = ask(turning, asked, asked, asked)
    assert sorted(t.stream.cached_tokens for t in told) == [0, 128, 128]
    assert told[0].tokens == told[1].tokens == told[2].tokens


def test_every_token_says_how_likely_it_was_and_what_else_might_have_come(turning: Place) -> None:
    asked = prompt(30, seed=302)
    said = one(turning, asked, top=4).said[0]
    with torch.inference_mode():
        logp_V = turning.whole(torch.tensor([asked]))[0, -1].log_softmax(-1)
    assert said.logprob == pytest.approx(float(logp_V[said.token]), abs=1e-4)
    assert [token for token, _ in said.top] == logp_V.topk(4).indices.tolist()


def test_an_answer_counts_its_tokens_and_says_why_it_ended(turning: Place) -> None:
    stream = one(turning, prompt(10, seed=303)).stream
    assert (stream.prompt_tokens, stream.completion_tokens) == (10, 16)
    assert (stream.finish_reason, stream.failovers) == ("length", 0)


def test_a_stop_string_ends_the_text_before_it(turning: Place) -> None:
    asked = prompt(20, seed=304)
    whole = one(turning, asked).text
    stop = whole[10:13]
    told = one(turning, asked, Sampling(max_tokens=16, stop=(stop,)))
    assert told.text == whole[: whole.index(stop)]
    assert told.stream.finish_reason == "stop"


def test_the_context_ends_a_text_that_would_run_past_it(turning: Place) -> None:
    length = turning.primary.context - 4
    told = one(turning, prompt(length, seed=305), Sampling(max_tokens=100))
    assert (told.stream.finish_reason, len(told.tokens)) == ("length", 5)


@pytest.mark.parametrize("asked", [(), prompt(1024), (5, -1), (5, 320)])
def test_a_prompt_that_can_not_be_computed_is_refused_at_once(turning: Place, asked: tuple[int, ...]) -> None:
    with pytest.raises(BadPrompt):
        turning.primary.submit(Ask(asked, GREEDY))


def test_nothing_is_held_for_answers_that_ended_except_prompts(turning: Place) -> None:
    one(turning, prompt(70, seed=306))
    turning.until(lambda: not turning.loop.batcher.active, "the answer ends")
    assert turning.loop.batcher.used % 64 == 0
    assert turning.loop.batcher.used >= 64


def test_an_explanation_adds_up_to_the_models_own_logit(turning: Place) -> None:
    asked, token = prompt(90, seed=307), 17
    explained = turning.primary.explain(asked, token)
    with torch.inference_mode():
        logits_V = turning.whole(torch.tensor([asked]))[0, -1].double()
    assert explained["total"] == pytest.approx(float(logits_V[token] - logits_V.mean()), abs=1e-3)
    parts = [layer["logit"] for node in explained["contributions"] for layer in node["layers"]]
    assert explained["embedding"] + math.fsum(parts) == pytest.approx(explained["total"])


def test_an_explanation_names_the_nodes_and_all_their_layers(turning: Place) -> None:
    explained = turning.primary.explain(prompt(5), 17)
    assert [(c["name"], c["start"], c["stop"]) for c in explained["contributions"]] == [
        ("W1", 0, 2),
        ("W2", 2, 4),
    ]
    layers = [layer["layer"] for c in explained["contributions"] for layer in c["layers"]]
    assert layers == [0, 1, 2, 3]
    for node in explained["contributions"]:
        assert node["logit"] == pytest.approx(sum(layer["logit"] for layer in node["layers"]))


def test_the_explained_token_has_the_probability_that_it_was_said_with(turning: Place) -> None:
    asked = prompt(33, seed=308)
    said = one(turning, asked).said[0]
    explained = turning.primary.explain(asked, said.token)
    assert explained["logprob"] == pytest.approx(said.logprob, abs=1e-4)
    assert explained["alternatives"][0]["token"] == said.token


@pytest.mark.parametrize("token", [-1, 320])
def test_no_token_outside_the_vocabulary_is_explained(turning: Place, token: int) -> None:
    with pytest.raises(BadPrompt, match="vocabulary"):
        turning.primary.explain(prompt(5), token)
