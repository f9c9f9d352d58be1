"""For every way to cut a stream into chunks, the splice delivers the same stream, both ways at once."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.nodes.identity import Authority, Identity, enrol
from sharedllm.nodes.proxy import Traffic
from tests.unit.nodes.proxy.ends import receive_all, send_chunks, spliced

SIZES = st.lists(
    st.integers(0, 70) | st.sampled_from([16_383, 16_384, 16_385, 262_143, 262_144, 262_145]), max_size=6
)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Identity, Identity]:
    folder = tmp_path_factory.mktemp("federation")
    authority = Authority.load_or_create(folder / "authority")
    return enrol(authority, folder / "worker", "worker"), enrol(authority, folder / "primary", "primary")


ROUND = bytes(range(251)) * 1_050  # more than the longest chunk and where it may begin


def chunks(sizes: list[int], seed: int) -> list[bytes]:
    return [ROUND[seed + place : seed + place + size] for place, size in enumerate(sizes)]


@settings(max_examples=30, deadline=None)
@given(there=SIZES, back=SIZES, rooms=st.tuples(st.integers(1, 70_000), st.integers(16_384, 300_000)))
def test_any_chunks_arrive_as_they_were(
    nodes: tuple[Identity, Identity], there: list[int], back: list[int], rooms: tuple[int, int]
) -> None:
    sent, returned = chunks(there, 1), chunks(back, 100)

    async def work() -> tuple[bytes, bytes, Traffic]:
        async with asyncio.timeout(30.0), spliced(*nodes) as (caller, engine, pump):
            arrived, came_back, *_ = await asyncio.gather(
                receive_all(engine, rooms[0]),
                receive_all(caller, rooms[1]),
                send_chunks(caller, sent),
                send_chunks(engine, returned),
            )
            return arrived, came_back, await pump

    arrived, came_back, traffic = asyncio.run(work())
    assert arrived == b"".join(sent)
    assert came_back == b"".join(returned)
    assert traffic == Traffic(len(arrived), len(came_back), "")
