"""Asking a primary, from an event loop, as the API does."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

from sharedllm.model import Sampling
from sharedllm.nodes.api.service import Ask, Said
from sharedllm.nodes.primary import Primary, Stream
from tests.unit.nodes.primary.threads import DEADLINE_S, Place

GREEDY = Sampling(max_tokens=16)
CHANCE = Sampling(max_tokens=16, temperature=1.0, seed=7)


@dataclasses.dataclass
class Told:
    """What a reader heard, and how it ended."""

    said: list[Said]
    stream: Stream
    error: Exception | None = None

    @property
    def tokens(self) -> list[int]:
        return [said.token for said in self.said if said.token >= 0]

    @property
    def text(self) -> str:
        return "".join(said.piece for said in self.said)


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    """A prompt of so many tokens; another seed is another prompt from its first token on."""
    return tuple(1 + (7 * i * i + 13 * i + 31 * seed) % 300 for i in range(length))


async def tell(
    primary: Primary, asked: tuple[int, ...], sampling: Sampling = GREEDY, top: int = 0, model: str = ""
) -> Told:
    """Ask and read to the end."""
    told = Told([], primary.submit(Ask(asked, sampling, top, "request-1", model=model)))
    try:
        async with asyncio.timeout(DEADLINE_S):
            async for said in told.stream:
                told.said.append(said)
    except TimeoutError:
        raise
    except Exception as error:
        told.error = error
    return told


def ask(
    place: Place,
    *prompts: tuple[int, ...],
    sampling: Sampling = GREEDY,
    top: int = 0,
    models: Sequence[str] = (),
) -> list[Told]:
    """Ask for all of these side by side, each of its model, and read all answers."""

    async def run() -> list[Told]:
        each = zip(prompts, models or [""] * len(prompts), strict=True)
        return await asyncio.gather(*(tell(place.primary, p, sampling, top, model) for p, model in each))

    return asyncio.run(run())


def one(
    place: Place, asked: tuple[int, ...], sampling: Sampling = GREEDY, top: int = 0, model: str = ""
) -> Told:
    """Ask for one answer."""
    return asyncio.run(tell(place.primary, asked, sampling, top, model))
