"""Too many, too long, gone away, shut down: nobody waits for ever, and nothing is held for nobody."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from sharedllm.errors import BadPrompt
from sharedllm.model import Sampling, Tokenizer, Transformer
from sharedllm.nodes.api.service import Ask
from sharedllm.nodes.errors import Busy, NoPipeline
from sharedllm.nodes.primary import Sequence, Stream, service
from tests.unit.nodes.primary.talking import GREEDY, Told, ask, one, prompt, tell
from tests.unit.nodes.primary.threads import CONFIG, DEADLINE_S, Place, place

LONG = Sampling(max_tokens=400)
TOKEN_BYTES = 2 * 4 * 2 * CONFIG.kv_heads * CONFIG.head_width  # of two layers


@pytest.fixture
def tight(tiny: Transformer, tokenizer: Tokenizer) -> Iterator[Place]:
    """Nodes that have memory for 330 tokens each, which is five chunks."""
    stage = 2 * sum(weight.numel() * 4 for weight in tiny.blocks[0].parameters())
    with place(tiny, tokenizer, memory_bytes=stage + 660 * TOKEN_BYTES) as made:
        yield made


def run_async(place: Place, *prompts: tuple[int, ...], sampling: Sampling = LONG) -> list[Stream]:
    """Submit in one go, and hand the streams back unread."""

    async def run() -> list[Stream]:
        return [place.primary.submit(Ask(asked, sampling)) for asked in prompts]

    return asyncio.run(run())


def test_a_text_that_fills_the_smallest_node_ends_there(tight: Place) -> None:
    tight.loop.start()
    one(tight, prompt(5))
    assert tight.loop.batcher.capacity == 320
    told = one(tight, prompt(300), LONG)
    assert (told.stream.finish_reason, len(told.tokens)) == ("length", 21)


def test_a_prompt_that_no_pipeline_holds_is_refused_with_a_sentence(tight: Place) -> None:
    tight.loop.start()
    one(tight, prompt(5))
    with pytest.raises(BadPrompt, match="takes 319"):
        run_async(tight, prompt(320))


def test_a_prompt_that_came_before_the_pipeline_and_does_not_fit_is_refused_as_well(tight: Place) -> None:
    async def run() -> Told:
        telling = asyncio.create_task(tell(tight.primary, prompt(400)))
        await asyncio.sleep(0)
        tight.loop.start()
        return await telling

    assert "holds 320 tokens" in str(asyncio.run(run()).error)


def test_answers_that_do_not_fit_side_by_side_are_the_same_one_after_the_other(tight: Place) -> None:
    tight.loop.start()
    prompts = [prompt(100 + 30 * i, seed=i) for i in range(3)]
    sampling = Sampling(max_tokens=60)
    together = ask(tight, *prompts, sampling=sampling)
    assert [told.tokens for told in together] == [one(tight, p, sampling).tokens for p in prompts]


def test_a_cancelled_answer_frees_its_memory_on_every_node(ring: Place) -> None:
    ring.loop.start()

    async def run() -> Stream:
        stream = ring.primary.submit(Ask(prompt(30), LONG))
        await anext(stream)
        stream.cancel()
        async for _ in stream:
            pass
        return stream

    assert asyncio.run(run()).finish_reason == "cancelled"
    ring.until(lambda: not ring.loop.requests, "it is gone")
    ring.until(lambda: not any(ring.nodes[n].sessions.kv_bytes for n in ("w1", "w2")), "nodes hear of it")


def test_a_waiting_answer_can_be_cancelled(ring: Place) -> None:
    (stream,) = run_async(ring, prompt(30))
    stream.cancel()
    ring.loop.start()
    ring.until(lambda: not ring.loop.requests, "it is gone")


def test_whoever_comes_when_all_places_are_taken_is_told_when_to_come_back(
    ring: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_REQUESTS", 3)
    with pytest.raises(Busy) as caught:
        run_async(ring, *[prompt(5)] * 4)
    assert caught.value.retry_after_s >= 1


def test_two_hundred_clients_that_vanish_leave_nothing_behind(
    ring: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_REQUESTS", 200)
    ring.loop.start()
    chance = random.Random(0)

    async def vanish(number: int) -> None:
        stream = ring.primary.submit(Ask(prompt(chance.randrange(1, 150), seed=number % 9), LONG))
        for _ in range(chance.randrange(3)):
            await anext(stream)
        stream.cancel()

    async def run() -> None:
        await asyncio.wait_for(asyncio.gather(*map(vanish, range(200))), DEADLINE_S)

    asyncio.run(run())
    batcher = ring.loop.batcher
    ring.until(lambda: not ring.loop.requests, "all are gone")
    assert batcher.used == sum(len(prefix) for _, prefix in batcher._kept)
    used = batcher.used * TOKEN_BYTES
    ring.until(lambda: ring.nodes["w1"].sessions.kv_bytes == used, "nodes hold no more than that")
    assert one(ring, prompt(20)).error is None


def test_a_client_whose_event_loop_is_gone_is_forgotten(ring: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[Sequence] = []
    cancel = ring.loop.cancel
    monkeypatch.setattr(ring.loop, "cancel", lambda sequence: [cancelled.append(sequence), cancel(sequence)])
    run_async(ring, prompt(5), prompt(6), sampling=Sampling(max_tokens=900))
    ring.loop.start()
    ring.until(lambda: not ring.loop.requests, "nobody listens")
    assert one(ring, prompt(20)).error is None
    assert len(cancelled) == 2


def test_stopping_ends_answers_with_a_sentence(ring: Place) -> None:
    ring.loop.start()

    async def run() -> str:
        telling = asyncio.create_task(tell(ring.primary, prompt(30), LONG))
        await asyncio.to_thread(ring.until, lambda: ring.loop.tokens > 2, "it began")
        await asyncio.to_thread(ring.primary.close, 0.0)
        told = await telling
        assert told.said
        return str(told.error)

    assert "shut down" in asyncio.run(run())
    assert ring.coordinator.closed == [ring.loop.routes.registered]


def test_stopping_lets_answers_finish_for_a_while(ring: Place) -> None:
    ring.loop.start()

    async def run() -> None:
        telling = asyncio.create_task(tell(ring.primary, prompt(30), GREEDY))
        await asyncio.to_thread(ring.until, lambda: ring.loop.tokens > 2, "it began")
        await asyncio.to_thread(ring.primary.close, DEADLINE_S)
        assert (await telling).error is None

    asyncio.run(run())


def test_whoever_comes_while_it_stops_is_sent_away(ring: Place) -> None:
    ring.loop.start()
    ring.primary.close(0.0)
    with pytest.raises(NoPipeline, match="shutting down"):
        run_async(ring, prompt(5))


def test_stopping_does_not_wait_for_a_node_that_loads(ring: Place) -> None:
    ring.nodes["w1"].awake.clear()
    ring.loop.start()
    ring.until(lambda: ring.loop._opening is not None, "it is being opened")
    ring.loop.stop("Enough.")
    assert not ring.loop.is_alive()


def test_an_explanation_ends_with_the_primary(ring: Place) -> None:
    ring.loop.start()
    one(ring, prompt(5))
    ring.nodes["w2"].awake.clear()

    async def run() -> None:
        explaining = asyncio.create_task(asyncio.to_thread(ring.primary.explain, prompt(5), 17))
        await asyncio.to_thread(ring.until, lambda: ring.loop.requests == 1, "it was asked")
        await asyncio.to_thread(ring.primary.close, 0.0)
        with pytest.raises(NoPipeline, match="shut down"):
            await explaining

    asyncio.run(run())
