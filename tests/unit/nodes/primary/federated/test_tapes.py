"""However an answer ends, its tape ends with it, and an error in one answer ends no other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharedllm.attribution.receipts import verify
from sharedllm.model import Sampling, Transformer
from sharedllm.nodes.api.service import Ask
from sharedllm.nodes.errors import NoPipeline
from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.primary import Sequence, Stream, loop
from sharedllm.nodes.primary.audit import Auditor
from sharedllm.nodes.primary.federated.mixed import Mixed
from sharedllm.nodes.primary.sequence import Telling
from tests.unit.nodes.primary.federated.choirs import serve, serve_two_bases
from tests.unit.nodes.primary.talking import GREEDY, one, prompt
from tests.unit.nodes.primary.threads import DEADLINE_S, Place

LONG = Sampling(max_tokens=400)
ASKED = prompt(20)


@pytest.fixture
def auditor(ring: Place, tmp_path: Path) -> Iterator[Auditor]:
    """The ring's primary audits what it serves; at the end, no tape is open."""
    auditor = Auditor(tmp_path / "audit", NodeKey.load_or_create(tmp_path / "key"), collect_s=0.01)
    ring.primary._auditor = auditor
    yield auditor
    ring.until(lambda: not auditor._open, "every tape ends")
    auditor.close()


def submit(place: Place, receipt: str = "r1", sampling: Sampling = LONG) -> Stream:
    return place.primary.submit(Ask(ASKED, sampling, receipt=receipt))


async def rest(stream: Stream) -> Exception | None:
    """Read to the end; how it failed, if it did."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            async for _ in stream:
                pass
    except NoPipeline as error:
        return error
    return None


def ended(auditor: Auditor, receipt: str = "r1") -> str | None:
    found = auditor.receipt(receipt, DEADLINE_S)
    assert found is not None
    return verify(found).answer.finish_reason


async def cancelled(place: Place, begun: bool) -> None:
    stream = submit(place)
    if begun:
        await anext(stream)
    stream.cancel()
    await rest(stream)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("mixture", [False, True])
def test_a_client_that_goes_ends_its_tape(ring: Place, auditor: Auditor, begun: bool, mixture: bool) -> None:
    if mixture:
        serve(ring)
    ring.loop.start()
    asyncio.run(cancelled(ring, begun))
    assert ended(auditor) == "cancelled"


def test_a_client_whose_event_loop_is_gone_ends_its_tape(ring: Place, auditor: Auditor) -> None:
    async def leave() -> None:
        submit(ring)

    asyncio.run(leave())
    ring.loop.start()
    ring.until(lambda: not ring.loop.requests, "it is forgotten")
    assert ended(auditor) == "cancelled"


def test_a_ring_that_is_gone_for_good_ends_the_tapes_of_all_its_answers(
    ring: Place, tiny: Transformer, auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_two_bases(ring, tiny)
    for each in ring.loops:
        each.start()

    async def run() -> None:
        streams = [submit(ring, f"r{i}") for i in range(3)]
        await anext(streams[0])
        monkeypatch.setattr(loop, "_GIVE_UP_S", 0.0)
        ring.lose(*list(ring.nodes))
        assert all(await asyncio.gather(*map(rest, streams)))

    asyncio.run(run())
    assert {ended(auditor, f"r{i}") for i in range(3)} == {"failed"}


def test_a_primary_that_is_shut_down_ends_its_tapes(ring: Place, auditor: Auditor) -> None:
    ring.loop.start()

    async def run() -> None:
        stream = submit(ring)
        await anext(stream)
        await asyncio.to_thread(ring.primary.close, 0.0)
        assert "shut down" in str(await rest(stream))

    asyncio.run(run())
    assert ended(auditor) == "failed"


def once(monkeypatch: pytest.MonkeyPatch, where: type, method: str) -> None:
    """Let a method raise the first time that it is called."""
    real, left = getattr(where, method), [1]

    def broken(self: object, *given: Any) -> Any:
        if left:
            left.clear()
            raise ZeroDivisionError
        return real(self, *given)

    monkeypatch.setattr(where, method, broken)


@pytest.mark.parametrize(
    ("where", "method"), [(Mixed, "_weighed"), (Telling, "choose"), (Telling, "say"), (Sequence, "scored")]
)
def test_an_error_in_one_answer_ends_that_one_and_no_other(
    ring: Place,
    tiny: Transformer,
    auditor: Auditor,
    monkeypatch: pytest.MonkeyPatch,
    where: type,
    method: str,
) -> None:
    serve_two_bases(ring, tiny)
    once(monkeypatch, where, method)
    for each in ring.loops:
        each.start()

    async def run() -> list[Exception | None]:
        return await asyncio.gather(*(rest(submit(ring, f"r{i}", GREEDY)) for i in range(3)))

    errors = [error for error in asyncio.run(run()) if error is not None]
    assert [str(error) for error in errors] == [
        "This answer met an error in the primary, whose log says more; ask for it again."
    ]
    assert sorted(str(ended(auditor, f"r{i}")) for i in range(3)) == ["failed", "length", "length"]
    assert not any(each.failovers or each.requests for each in ring.loops)


def test_an_error_that_comes_back_ends_answers_with_a_sentence(
    ring: Place, auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_RETRY_S", 0.0)
        patch.setattr(loop, "framed", lambda *_: 1 / 0)
        ring.loop.start()
        assert "again and again" in str(asyncio.run(rest_of(ring)))
    assert ended(auditor) == "failed"
    assert one(ring, ASKED).error is None


async def rest_of(place: Place) -> Exception | None:
    return await rest(submit(place))


def test_what_comes_as_the_loop_ends_is_ended_too(ring: Place, auditor: Auditor) -> None:
    ring.loop.start()
    ring.loop.stop("Enough.")  # as a request arrives that was let in just before
    assert str(asyncio.run(rest_of(ring))) == "Enough."
    assert ended(auditor) == "failed"


def test_whoever_asks_whether_it_is_ready_waits_for_no_pipeline(ring: Place) -> None:
    for node in ring.nodes.values():
        node.awake.clear()
    asked = threading.Event()
    ring.primary._explaining.proved = lambda part: asked.wait(DEADLINE_S)  # type: ignore[method-assign]
    ring.loop.start()
    assert not ring.primary.ready()[0]
    for node in ring.nodes.values():
        node.awake.set()
    ring.until(lambda: ring.loop.ring is not None, "it is open")
    assert [ring.primary.ready()[0] for _ in range(3)] == [False] * 3
    asked.set()
    ring.until(lambda: ring.primary.ready()[0], "its first token came")
