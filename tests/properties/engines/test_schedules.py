"""A token's bits depend on its own sequence and adapter alone: not on company, cuts, forks or threads."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharedllm.engines import Stage
from sharedllm.wire import Codec, Op, Segment, Want
from tests.unit.engines.toys import CONFIGS, Chain, adapted, delta, stage, toy

CUTS = [(0, 4), (0, 2, 4), (0, 1, 3, 4), (0, 3, 4), (0, 1, 2, 3, 4)]
CODECS = {name: dict.fromkeys((0, 2, 4), Codec.named(name)) for name in ("fp32", "fp16", "int8")}
CHUNK = 8
PROMPTS, LENGTHS = (20, 8, 13), (31, 30, 33)
SEQUENCES = range(len(LENGTHS))


@functools.cache
def part(kind: str, start: int, stop: int) -> Stage:
    return stage(toy(kind), start, stop)


@functools.cache
def embedded(kind: str, sequence: int) -> Tensor:
    tokens = torch.randint(0, 90, (LENGTHS[sequence],), generator=torch.Generator().manual_seed(sequence))
    return toy(kind).embed(tokens)


def chain(kind: str, cut: tuple[int, ...], roundings: Mapping[int, Codec]) -> Chain:
    return Chain([part(kind, *span) for span in itertools.pairwise(cut)], roundings)


def piece(sequence: int, fed: int, most: int) -> Segment:
    """The next rows: a prompt's pieces are always cut alike, what follows may come in any number."""
    prompt = PROMPTS[sequence]
    if fed < prompt:
        return Segment(Op.CHUNK, 0, fed, min(CHUNK, prompt - fed), Want.ALL)
    return Segment(Op.ROWS, 0, fed, min(most, LENGTHS[sequence] - fed), Want.ALL)


@functools.cache
def own(kind: str, number: int) -> Stage:
    """All layers of a model that has an adapter's gains for its own."""
    return stage(adapted(kind, number), 0, CONFIGS[kind].layers)


@functools.cache
def reference(kind: str, codec: str, sequence: int, worn: int) -> Tensor:
    """A sequence alone in a pipeline of the adapted model, on one thread, token by token."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone, rows, fed = Chain([own(kind, worn)], CODECS[codec]), [], 0
    while fed < LENGTHS[sequence]:
        segment = piece(sequence, fed, 1)
        rows.append(alone.step(embedded(kind, sequence)[fed : fed + segment.rows], segment))
        fed += segment.rows
    torch.set_num_threads(threads)
    return torch.cat(rows)


@dataclass
class Schedule:
    """A pipeline at work, as a primary sees it; every row that comes back is compared at once.

    ``worn``: the number of each sequence's adapter; 0 is the base.
    """

    kind: str
    codec: str
    worn: tuple[int, ...]
    cut: tuple[int, ...] = CUTS[0]
    fed: list[int] = field(default_factory=lambda: [0] * len(LENGTHS))
    slots: list[int] = field(default_factory=lambda: list(SEQUENCES))
    ops: list[Segment] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fresh = itertools.count(100)
        self.move(self.cut)

    def step(self, wishes: list[tuple[int, int]]) -> None:
        """Compute the next rows of some sequences together, in this order."""
        chosen = [(s, most) for s, most in dict(wishes).items() if self.fed[s] < LENGTHS[s]]
        segments = [piece(s, self.fed[s], most) for s, most in chosen]
        rows = [
            embedded(self.kind, s)[p.start : p.start + p.rows]
            for (s, _), p in zip(chosen, segments, strict=True)
        ]
        placed = [
            Segment(p.op, self.slots[s], p.start, p.rows, p.want)
            for (s, _), p in zip(chosen, segments, strict=True)
        ]
        h_RD = torch.cat([torch.empty(0, CONFIGS[self.kind].width), *rows])
        out = self.chain.step(h_RD, *self.ops, *placed)
        self.ops = []
        for (s, _), p in zip(chosen, segments, strict=True):
            came, out = out[: p.rows], out[p.rows :]
            expected = reference(self.kind, self.codec, s, self.worn[s])
            assert torch.equal(came, expected[p.start : p.start + p.rows])
            self.fed[s] += p.rows

    def back(self, sequence: int, k: int) -> int:
        """How far a sequence is after going back by ``k``: a prompt's pieces are recomputed whole."""
        fed = max(0, self.fed[sequence] - k)
        return fed if fed >= PROMPTS[sequence] else fed // CHUNK * CHUNK

    def roll_back(self, sequence: int, k: int) -> None:
        fed = self.back(sequence, k)
        if self.fed[sequence]:
            self.ops.append(Segment(Op.ROLLBACK, self.slots[sequence], self.fed[sequence] - fed))
        self.fed[sequence] = fed

    def fork(self, sequence: int, k: int) -> None:
        """Go on in a copy of the beginning, and let the original go."""
        if self.fed[sequence]:
            fed, slot = self.back(sequence, k), next(self.fresh)
            self.ops.append(Segment(Op.FORK, slot, fed, source=self.slots[sequence]))
            self.ops.append(Segment(Op.FREE, self.slots[sequence]))
            self.fed[sequence], self.slots[sequence] = fed, slot

    def move(self, cut: tuple[int, ...]) -> None:
        """Lose all caches and adapters, and replay everything on a pipeline that is cut elsewhere."""
        self.cut, self.fed, self.slots = cut, [0] * len(LENGTHS), list(SEQUENCES)
        self.chain = chain(self.kind, cut, CODECS[self.codec])
        for number in filter(None, self.worn):
            self.chain.lend(number, delta(self.kind, number))
        self.ops = [Segment(Op.WEAR, s, source=self.worn[s]) for s in SEQUENCES]

    def lend(self, number: int, other: int | None) -> None:
        """Lend other gains under a number that is worn, or let it be forgotten; no slot may notice."""
        if self.ops:
            self.step([])
        self.chain.lend(number, None if other is None else delta(self.kind, other))


STEPS = st.lists(
    st.tuples(st.sampled_from(SEQUENCES), st.integers(1, 20)),
    min_size=1,
    max_size=3,
    unique_by=lambda w: w[0],
)
MOVES = st.one_of(
    STEPS.map(lambda wishes: ("step", wishes)),
    STEPS.map(lambda wishes: ("step", wishes)),
    st.tuples(st.sampled_from(["roll_back", "fork"]), st.sampled_from(SEQUENCES), st.integers(0, 40)),
    st.sampled_from(CUTS).map(lambda cut: ("move", cut)),
    st.sampled_from([1, 2, 3]).map(lambda threads: ("threads", threads)),
    st.tuples(st.just("lend"), st.integers(1, 4), st.sampled_from([None, 1, 2, 3, 4])),
)


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", list(CONFIGS))
@settings(max_examples=8, deadline=None)
@given(
    codec=st.sampled_from(list(CODECS)),
    worn=st.tuples(*[st.integers(0, 3)] * len(LENGTHS)),
    moves=st.lists(MOVES, max_size=14),
)
def test_any_schedule_gives_every_row_the_same_bits(
    kind: str, codec: str, worn: tuple[int, ...], moves: list[tuple[object, ...]]
) -> None:
    torch.set_num_threads(1)
    schedule = Schedule(kind, codec, worn)
    for name, *given_ in moves:
        if name == "threads":
            torch.set_num_threads(given_[0])  # type: ignore[arg-type]
        else:
            getattr(schedule, str(name))(*given_)
    while any(fed < length for fed, length in zip(schedule.fed, LENGTHS, strict=True)):
        schedule.step([(s, 1 << s) for s in SEQUENCES])


@pytest.mark.parametrize("codec", ["fp16", "int8"])
@pytest.mark.parametrize("cut", CUTS)
def test_a_border_that_is_kept_after_a_new_cut_rounds_as_it_did(codec: str, cut: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    segment = Segment(Op.CHUNK, 1, 0, 20, Want.ALL)
    rows = [
        chain("dense", each, CODECS[codec]).step(embedded("dense", 0)[:20], segment)
        for each in (CUTS[1], cut)
    ]
    assert torch.equal(*rows)
    without = chain("dense", cut, {}).step(embedded("dense", 0)[:20], segment)
    assert not torch.equal(rows[0], without)
