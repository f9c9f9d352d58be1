"""What goes in comes out: every byte, in order, both ways, whatever the chunks and whoever ends first."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from sharedllm.nodes.identity import Identity
from sharedllm.nodes.proxy import Traffic
from sharedllm.nodes.proxy.channel import TlsChannel
from sharedllm.nodes.proxy.framing import receive_exactly, send_all
from tests.unit.nodes.proxy.ends import receive_all, send_chunks, spliced
from tests.unit.nodes.proxy.federation import DEADLINE_S, Federation


def within_deadline(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await work()

    asyncio.run(bounded())


async def taken_soon(channel: TlsChannel, chunk: bytes) -> bool:
    try:
        async with asyncio.timeout(0.5):
            await send_all(channel, chunk)
    except TimeoutError:
        return False
    return True


@pytest.fixture
def nodes(federation: Federation) -> tuple[Identity, Identity]:
    return federation.worker, federation.primary


def test_megabytes_cross_both_ways_at_once(nodes: tuple[Identity, Identity]) -> None:
    there, back = random.Random(1).randbytes(3_000_001), random.Random(2).randbytes(2_345_678)

    async def work() -> None:
        async with spliced(*nodes) as (caller, engine, pump):
            arrived, returned, *_ = await asyncio.gather(
                receive_all(engine),
                receive_all(caller),
                send_chunks(caller, [there]),
                send_chunks(engine, [back]),
            )
            assert arrived == there
            assert returned == back
            assert await pump == Traffic(len(there), len(back), "")

    within_deadline(work)


def test_a_caller_that_ended_its_direction_still_hears_the_answer(nodes: tuple[Identity, Identity]) -> None:
    async def work() -> None:
        async with spliced(*nodes) as (caller, engine, pump):
            await send_chunks(caller, [b"question"])
            assert await receive_all(engine) == b"question"
            await send_chunks(engine, [b"answer" * 50_000])
            assert await receive_all(caller) == b"answer" * 50_000
            assert (await pump).fault == ""

    within_deadline(work)


def test_an_engine_that_ended_its_direction_still_hears_the_caller(nodes: tuple[Identity, Identity]) -> None:
    async def work() -> None:
        async with spliced(*nodes) as (caller, engine, pump):
            await send_chunks(engine, [b"bye"])
            assert await receive_all(caller) == b"bye"
            data = b"more" * 200_000
            arrived, _ = await asyncio.gather(receive_all(engine), send_chunks(caller, [data]))
            assert arrived == data
            assert (await pump).fault == ""

    within_deadline(work)


def test_an_engine_that_ends_while_much_is_on_its_way_loses_none_of_it(
    nodes: tuple[Identity, Identity],
) -> None:
    data = random.Random(3).randbytes(2_000_000)

    async def work() -> None:
        async with spliced(*nodes) as (caller, engine, pump):
            sending = asyncio.create_task(send_chunks(caller, [data]))
            head = await receive_exactly(engine, 1000)
            engine.close_write()
            assert head + await receive_all(engine) == data
            assert await receive_all(caller) == b""
            await sending
            assert (await pump).fault == ""

    within_deadline(work)


def test_a_slow_reader_stops_the_sender(nodes: tuple[Identity, Identity]) -> None:
    async def work() -> None:
        async with spliced(*nodes) as (caller, _, pump):
            chunk, taken_bytes = bytes(1 << 20), 0
            # what fits into the buffers on the way, and not a byte more, while nobody reads
            while taken_bytes < 64 << 20 and await taken_soon(caller, chunk):
                taken_bytes += len(chunk)
            assert taken_bytes < 16 << 20
            assert not pump.done()

    within_deadline(work)


def test_a_connection_cut_without_a_goodbye_is_a_fault(nodes: tuple[Identity, Identity]) -> None:
    async def work() -> None:
        async with spliced(*nodes) as (caller, engine, pump):
            await send_all(caller, b"half a sent")
            assert await receive_exactly(engine, 11) == b"half a sent"
            caller.close()
            assert (await pump).fault == "the other end went away without saying so"
            assert await receive_all(engine) == b""

    within_deadline(work)


def test_garbage_instead_of_records_is_a_fault(nodes: tuple[Identity, Identity]) -> None:
    async def work() -> None:
        async with spliced(*nodes) as (caller, _, pump):
            assert isinstance(caller, TlsChannel)
            caller._socket.send(b"\x17\x03\x03\x00\x20" + bytes(32))
            assert "BAD" in (await pump).fault.upper()

    within_deadline(work)


def test_silence_both_ways_ends_it(nodes: tuple[Identity, Identity]) -> None:
    async def work() -> None:
        async with spliced(*nodes, idle_s=0.1) as (_, _, pump):
            assert (await pump).fault == "nothing was sent either way for 0 s"

    within_deadline(work)


def test_small_messages_go_to_and_fro(nodes: tuple[Identity, Identity]) -> None:
    async def work() -> None:
        async with spliced(*nodes) as (caller, engine, _):
            for number in range(300):
                said = number.to_bytes(4, "big")
                await send_all(caller, said)
                assert await receive_exactly(engine, 4) == said
                await send_all(engine, said[::-1])
                assert await receive_exactly(caller, 4) == said[::-1]

    within_deadline(work)
