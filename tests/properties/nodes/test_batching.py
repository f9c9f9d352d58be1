"""Whatever arrives, is cancelled, ends, or moves: workers are told nothing that their caches can't hold."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sharedllm.nodes.primary.batching import Batcher, Step
from sharedllm.nodes.primary.sequence import CHUNK, Sequence
from sharedllm.wire import Op, Want
from tests.properties.nodes.caches import ADAPTERS, Choir, Worker, next_token, sequence

MANY_STEPS = 20_000


prompts = st.builds(
    lambda blocks, tail, seed: tuple(
        [block * 7 + i % 5 for block in blocks for i in range(CHUNK)] + [(seed + i) % 97 for i in range(tail)]
    ),
    st.lists(st.integers(0, 1), max_size=4),
    st.integers(1, 2 * CHUNK),
    st.integers(0, 2),
)


capacities = st.sampled_from([256, 300, 320, 450, 704, 1000])  # a multiple of chunks, or not


class Serving(RuleBasedStateMachine):
    """A primary's batcher and a worker; results come back in order, several steps later."""

    @initialize(capacity=capacities, lanes=st.integers(1, 3))
    def open(self, capacity: int, lanes: int) -> None:
        self.lanes, self.batcher = lanes, Batcher()
        self.worker = Worker(capacity)
        self._opened(capacity)
        self.in_flight: deque[Step] = deque()
        self.asked: list[Sequence] = []

    @rule(several=st.lists(prompts, min_size=1, max_size=5), most=st.sampled_from([1, 20, 70, 150]))
    def arrive(self, several: list[tuple[int, ...]], most: int) -> None:
        for prompt in several:
            self.asked.append(sequence(prompt, len(self.asked), most))
            self.batcher.waiting.append(self.asked[-1])

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def is_cancelled(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.asked)).number
        for asked in [asked for asked in self.asked if asked.number == number]:
            self.batcher.end(asked)

    @rule(steps=st.integers(1, 40))
    def turns(self, steps: int) -> None:
        for _ in range(steps):
            self._turn()

    @rule(capacity=capacities)
    def moves(self, capacity: int) -> None:
        """To another pipeline: nothing that was in flight counts."""
        self.in_flight.clear()
        self.worker = Worker(capacity)
        self._opened(capacity)

    def _opened(self, capacity: int) -> None:
        self.batcher.opened(capacity)
        self.batcher.worn.update({key: number for number, key in enumerate(ADAPTERS, 1)})

    @rule(prompt=prompts, count=st.integers(2, len(ADAPTERS)), most=st.sampled_from([1, 20, 70]))
    def arrive_together(self, prompt: tuple[int, ...], count: int, most: int) -> None:
        """A mixture: several members of one number."""
        members = [sequence(prompt, len(self.asked), most) for _ in range(count)]
        Choir(members, lambda: self.batcher)
        self.asked += members
        for member in members:
            self.batcher.take(member)

    @invariant()
    def members_of_a_mixture_are_computed_together_or_not_at_all(self) -> None:
        for asked in self.batcher.active:
            if asked.mixed is not None:
                beside = [other for other in self.batcher.active if other.number == asked.number]
                assert len(beside) == asked.company

    @invariant()
    def a_slot_wears_what_its_request_wears(self) -> None:
        for asked in self.batcher.active:
            if self.worker.held.get(cast(int, asked.slot)):
                wears = self.worker.slots[cast(int, asked.slot)].wears
                assert wears == (0 if asked.worn is None else self.batcher.worn[asked.worn.key])

    @invariant()
    def active_requests_hold_exactly_what_was_sent(self) -> None:
        for asked in self.batcher.active:
            held = self.worker.held.get(cast(int, asked.slot), [])
            if not any(segment.slot == asked.slot for segment in self.batcher._ops):
                assert [token for token, _ in held] == asked.tokens[: asked.fed]

    @invariant()
    def pieces_are_cut_by_position_alone(self) -> None:
        """So a token's bits depend neither on what was cached nor on what else was computed."""
        for asked in self.batcher.active:
            for i, (_, segment) in enumerate(self.worker.held.get(cast(int, asked.slot), [])):
                if i < asked.prompt_length:
                    assert segment.op is Op.CHUNK
                    assert (segment.start, segment.start + segment.rows) == (
                        i // CHUNK * CHUNK,
                        min(i // CHUNK * CHUNK + CHUNK, asked.prompt_length),
                    )
                else:
                    assert segment.op is Op.ROWS

    @invariant()
    def memory_suffices(self) -> None:
        assert self.batcher.used <= self.batcher.capacity <= self.worker.slots.budget
        assert all(len(prefix) % CHUNK == 0 for _, prefix in self.batcher._kept)

    def _turn(self) -> None:
        while len(self.in_flight) < self.lanes and (step := self._composed()) is not None:
            assert step.bulk_rows <= CHUNK
            assert sum(segment.rows > 1 for segment in step.segments) <= 1
            wanting = sum(segment.want is Want.LAST for segment in step.segments)
            assert wanting <= len(step.readers) <= wanting + len(step.scored)
            assert all(row < step.results for row in step.read)
            self.worker.take(step)
            self.in_flight.append(step)
        if self.in_flight:
            self._result(self.in_flight.popleft())

    def _composed(self) -> Step | None:
        """The next step; whoever must make room for it is younger than all who stay."""
        before = list(self.batcher.active)
        step = self.batcher.step(self.lanes)
        stay = [asked.number for asked in before if asked in self.batcher.active]
        gone = [asked.number for asked in before if asked not in self.batcher.active]
        assert not gone or max(stay) < min(gone)
        return step

    def _result(self, step: Step) -> None:
        for scored in step.scored:
            if scored.sequence.life == scored.life:
                scored.sequence.scored(scored.start, torch.zeros(scored.rows))
        for asked, life in step.readers:
            if asked.life == life:
                asked.accept(torch.zeros(97), next_token(asked.tokens))
                if asked.finish_reason:
                    self.batcher.end(asked)

    def teardown(self) -> None:
        if not hasattr(self, "batcher"):
            return
        for _ in range(MANY_STEPS):
            if not (self.batcher.active or self.batcher.waiting):
                break
            self._turn()
        assert not [*self.batcher.active, *self.batcher.waiting], "a request never ends"
        for asked in self.asked:
            for i in range(asked.prompt_length, len(asked.tokens)):
                assert asked.tokens[i] == next_token(asked.tokens[:i])
        while (step := self.batcher.step(self.lanes)) is not None:
            self.worker.take(step)
        assert sorted(self.worker.held) == sorted(self.batcher._kept.values()), "a slot leaks"
        assert self.worker.slots.used == self.batcher.used


Serving.TestCase.settings = settings(max_examples=80, stateful_step_count=20, deadline=None)
TestServing: Any = Serving.TestCase


@given(
    length=st.integers(1, 200),
    written=st.integers(0, 150),
    restarts=st.lists(st.integers(1, 12), max_size=4),
)
def test_chunks_and_rows_give_back_every_token_in_order(
    length: int, written: int, restarts: list[int]
) -> None:
    """Wherever a request begins anew, the same pieces of the prompt and then rows make up all its tokens."""
    asked = sequence(tuple(i % 97 for i in range(length)), 0, 200)
    asked.tokens += [(3 * i) % 97 for i in range(written)]
    for pieces in [*restarts, 1000]:
        asked.restart()
        sent: list[int] = []
        for _ in range(pieces):
            rows = asked.next_rows() if asked.pending else 0
            in_prompt = asked.in_prompt
            assert rows <= CHUNK
            assert not in_prompt or asked.fed + rows <= length
            sent += asked.tokens[asked.fed : asked.fed + rows]
            asked.fed += rows
        assert sent == asked.tokens[: len(sent)]
    assert sent == asked.tokens


def test_a_request_that_made_room_does_not_ask_others_for_room_in_the_same_step() -> None:
    batcher = Batcher()
    batcher.opened(256)
    old, young = sequence(tuple(range(90)) * 2 + (1,) * 11, 0, 50), sequence((5,), 1, 50)
    batcher.waiting.extend([old, young])
    step = batcher.step(1)
    while step is not None and young not in batcher.waiting:
        for asked, _ in step.readers:
            asked.accept(torch.zeros(97), 1)
        step = batcher.step(1)
    assert step is not None
    assert batcher.active == [old]
    assert [reader for reader, _ in step.readers] == [old]
