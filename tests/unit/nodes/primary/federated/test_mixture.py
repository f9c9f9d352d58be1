"""A mixture of specialists says what the same mixture says in one piece, through however many rings."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
import torch
from torch import Tensor

from sharedllm.combiner import Blend, FixedShare, blended, mixture
from sharedllm.model import Sampling, Tokenizer, Transformer
from sharedllm.nodes.api.service import Ask
from sharedllm.nodes.primary import Sequence
from sharedllm.nodes.primary.batching import Batcher
from sharedllm.nodes.primary.federated.mixed import ALPHA, Mixed
from sharedllm.nodes.primary.federated.reading import read
from sharedllm.wire import Codec
from tests.unit.nodes.primary.federated.choirs import NAMES, adapted, expected, heard, serve, serve_two_bases
from tests.unit.nodes.primary.talking import CHANCE, GREEDY, ask, one, prompt
from tests.unit.nodes.primary.threads import Place

ASKED = prompt(100)


@pytest.mark.parametrize("length", [1, 2, 64, 65, 600])
def test_one_ring_says_what_the_mixture_says_in_one_piece(
    ring: Place, tiny: Transformer, length: int
) -> None:
    asked = prompt(length, seed=length)
    models = [adapted(tiny, seed) for seed in range(1, len(NAMES) + 1)]
    serve(ring)
    ring.loop.model = dataclasses.replace(ring.loop.model, wire=Codec.FP32)
    ring.loop.start()
    told, whole = one(ring, asked), expected(models, asked, 16)
    assert told.tokens == whole.tokens
    shares = torch.tensor([said.responsibilities for said in told.said])
    torch.testing.assert_close(shares, torch.tensor(whole.shares), atol=1e-4, rtol=0)


def test_two_rings_say_what_the_mixture_says_in_one_piece(ring: Place, tiny: Transformer) -> None:
    models = serve_two_bases(ring, tiny)
    for loop in ring.loops:
        loop.model = dataclasses.replace(loop.model, wire=Codec.FP32)
        loop.start()
    assert one(ring, ASKED).tokens == expected(models, ASKED, 16).tokens


def test_the_same_logits_give_the_same_numbers_in_the_combiner(
    ring: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Blend] = []
    carried: list[Tensor] = []
    weighed = Mixed._weighed

    def noted(self: Mixed, blend: Blend) -> None:
        if not heard:
            carried.append(torch.stack([torch.cat(sequence.scores) for _, sequence in self.members]))
        heard.append(blend)
        weighed(self, blend)

    monkeypatch.setattr(Mixed, "_weighed", noted)
    serve(ring)
    ring.loop.start()
    told = one(ring, ASKED)
    weights = FixedShare(len(NAMES), ALPHA).start()
    assert carried[0].shape == (len(NAMES), len(ASKED) - 1)
    weights.carry(carried[0])
    for said, blend in zip(told.said, heard, strict=True):
        again = blended(blend.logits, weights.logw_N)
        logp_NV = torch.stack(blend.logits).double().log_softmax(-1)
        a_N = again.evidence(said.token)
        assert said.token == int(again.m_V.argmax())
        assert said.responsibilities == tuple((a_N + weights.logw_N).softmax(0).tolist())
        assert a_N.tolist() == pytest.approx(logp_NV[:, said.token].tolist(), abs=1e-12)
        assert said.logprob == pytest.approx(float(mixture(logp_NV, weights.logw_N)[said.token]), abs=1e-12)
        weights.observe(a_N)


def test_responsibilities_sum_to_one(ring: Place) -> None:
    serve(ring)
    ring.loop.start()
    for said in one(ring, ASKED).said:
        assert abs(sum(said.responsibilities) - 1) < 1e-9


def test_a_specialist_alone_says_what_its_weights_say(ring: Place, tiny: Transformer) -> None:
    serve(ring)
    ring.loop.model = dataclasses.replace(ring.loop.model, wire=Codec.FP32)
    ring.loop.start()
    told = [one(ring, ASKED, model=name).tokens for name in ("tiny", *NAMES)]
    models = [tiny, *(adapted(tiny, seed) for seed in range(1, len(NAMES) + 1))]
    assert told == [expected([model], ASKED, 16).tokens for model in models]
    assert len(set(map(tuple, told))) > 1


@pytest.mark.parametrize("sampling", [GREEDY, CHANCE], ids=["greedy", "sampled"])
def test_mixtures_are_the_same_bits_together_and_alone(ring: Place, sampling: Sampling) -> None:
    serve(ring)
    ring.loop.start()
    prompts = [prompt(40 + 50 * i, seed=100 + i) for i in range(5)]
    together = [heard(told) for told in ask(ring, *prompts, sampling=sampling)]
    assert together == [heard(one(ring, asked, sampling)) for asked in prompts]


def test_a_prompt_that_was_asked_before_is_answered_alike(ring: Place) -> None:
    serve(ring)
    ring.loop.start()
    asked = prompt(700)
    first, second = one(ring, asked), one(ring, asked)
    assert heard(first) == heard(second)
    assert second.stream.cached_tokens > 0  # what lies before the weighed part of the prompt


def test_adapters_never_share_the_beginning_of_a_prompt(ring: Place) -> None:
    serve(ring)
    ring.loop.start()
    asked = prompt(200)
    alone = [heard(one(ring, prompt(200), model=name)) for name in NAMES]
    told = ask(ring, *[asked] * 3, models=NAMES)
    assert [heard(t) for t in told] == alone
    assert [t.stream.cached_tokens for t in told] == [192] * 3  # each from its own


def test_adapters_do_not_wait_for_each_others_prompts_either(ring: Place) -> None:
    serve(ring)
    ring.loop.start()
    told = ask(ring, *[prompt(200)] * 3, models=NAMES)
    assert [t.stream.cached_tokens for t in told] == [0] * 3
    assert [heard(t) for t in told] == [heard(one(ring, prompt(200), model=name)) for name in NAMES]


def test_many_mixtures_in_little_memory_all_come_to_an_end_with_the_same_text(
    ring: Place, tiny: Transformer
) -> None:
    serve(ring)
    ring.loop.start()
    prompts = [prompt(70 + 10 * i, seed=i) for i in range(4)]
    sampling = Sampling(max_tokens=24)
    roomy = [heard(one(ring, asked, sampling)) for asked in prompts]
    ring.loop._events.put(lambda: setattr(ring.loop.batcher, "capacity", 3 * 192))
    assert [heard(told) for told in ask(ring, *prompts, sampling=sampling)] == roomy


def test_mixtures_over_two_rings_in_little_memory_never_wait_for_each_other(
    ring: Place, tiny: Transformer
) -> None:
    serve_two_bases(ring, tiny)
    for loop in ring.loops:
        loop.start()
    prompts = [prompt(70 + 10 * i, seed=i) for i in range(4)]
    sampling = Sampling(max_tokens=24)
    roomy = [heard(one(ring, asked, sampling)) for asked in prompts]
    for loop in ring.loops:
        loop._events.put(lambda batcher=loop.batcher: setattr(batcher, "capacity", 2 * 192))
    assert [heard(told) for told in ask(ring, *prompts, sampling=sampling)] == roomy


def test_a_text_ends_where_its_members_fill_the_memory(ring: Place) -> None:
    serve(ring)
    ring.loop.start()
    one(ring, prompt(5))
    ring.loop._events.put(lambda: setattr(ring.loop.batcher, "capacity", 3 * 128))
    told = one(ring, prompt(100), Sampling(max_tokens=100))
    assert (told.stream.finish_reason, len(told.tokens)) == ("length", 29)


def test_a_prompt_that_fits_once_but_not_for_every_member_is_refused(ring: Place) -> None:
    serve(ring)
    ring.loop.start()
    one(ring, prompt(5))
    ring.loop._events.put(lambda: setattr(ring.loop.batcher, "capacity", 3 * 128))
    ring.until(lambda: ring.loop.batcher.capacity == 3 * 128, "memory shrinks")
    with pytest.raises(Exception, match="takes 127"):
        asyncio.run(_submitted(ring, prompt(130)))


async def _submitted(ring: Place, asked: tuple[int, ...]) -> None:
    ring.primary.submit(Ask(asked, GREEDY))


def test_a_cancelled_mixture_frees_the_memory_of_all_its_members(ring: Place) -> None:
    serve(ring)
    ring.loop.start()

    async def run() -> str:
        stream = ring.primary.submit(Ask(prompt(30), Sampling(max_tokens=500)))
        await anext(stream)
        stream.cancel()
        async for _ in stream:
            pass
        return stream.finish_reason

    assert asyncio.run(run()) == "cancelled"
    ring.until(lambda: not ring.loop.requests, "all members are gone")
    ring.until(lambda: not any(ring.nodes[n].sessions.kv_bytes for n in ("w1", "w2")), "nodes hear of it")


def test_a_mixture_counts_as_one_request(ring: Place) -> None:
    serve(ring)
    asyncio.run(_submitted(ring, prompt(30)))
    assert ring.loop.requests == 1


def test_a_text_that_ends_itself_ends_for_every_member(ring: Place) -> None:
    serve(ring)
    ring.loop.start()
    text = one(ring, ASKED, CHANCE).text
    told = one(ring, ASKED, dataclasses.replace(CHANCE, stop=(text[6:8],)))
    assert told.text == text[: text.index(text[6:8])]
    ring.until(lambda: not ring.loop.requests, "nothing goes on")


def test_what_a_member_says_again_is_not_taken_for_what_it_says_of_the_next_token(
    ring: Place, tokenizer: Tokenizer
) -> None:
    heard_of: list[int] = []

    class Chosen:
        def heard(self, member: Sequence, logits_V: Tensor) -> None:
            heard_of.append(len(member.tokens))

    member, batcher, ends = Sequence(Ask(ASKED, GREEDY), tokenizer, 1024, 1), Batcher(), ring.loop.model.ends
    member.mixed = Chosen()  # type: ignore[assignment]
    batcher.take(member)
    batcher.opened(1024)
    steps = [step for _ in range(2) if (step := batcher.step(1)) is not None]
    member.tokens.append(7)  # chosen from what the member had said before its pipeline was left
    steps += [step for _ in range(1) if (step := batcher.step(1)) is not None]
    for step in steps:
        read(ends, step, torch.randn(step.results, ends.config.width), torch.empty(0), batcher.end)
    assert heard_of == [len(ASKED) + 1]
