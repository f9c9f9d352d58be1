"""Where workers hold few adapters, whoever waits for one gets it, however many come for the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, cast

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sharedllm.nodes.primary.batching import _PASSES, Batcher, Step
from sharedllm.nodes.primary.federated.wardrobe import Wardrobe
from sharedllm.nodes.primary.ring import Ring
from tests.properties.nodes.caches import ADAPTERS, Wearing, sequence

_LONGEST = 6
_SOON = 40 * _LONGEST  # turns after which a request that came first has begun


class Lending(Wearing):
    """An adapter as far as the wardrobe knows one."""

    @property
    def delta(self) -> dict[str, torch.Tensor]:
        return {}


class Workers:
    """A ring whose workers have what they are lent some turns later."""

    def __init__(self, adapters: int) -> None:
        self.adapters, self.coming = adapters, deque[Callable[[], object]]()

    def lend(self, number: int, delta: object, then: Callable[[], object]) -> None:
        self.coming.append(then)


class Crowded(RuleBasedStateMachine):
    """More adapters are asked for than are held at a time; every answer is short."""

    @initialize(held=st.integers(1, 2), lanes=st.integers(1, 3))
    def open(self, held: int, lanes: int) -> None:
        self.batcher, self.wardrobe, self.workers = Batcher(), Wardrobe(), Workers(held)
        self.batcher.opened(1000)
        self.lanes, self.step = lanes, 0
        self.in_flight: deque[tuple[int, Step]] = deque()
        self.asked = 0
        self.worn = [Lending(key) for key in ADAPTERS]

    @rule(
        which=st.lists(st.integers(-1, len(ADAPTERS) - 1), min_size=1, max_size=6),
        most=st.integers(1, _LONGEST),
    )
    def arrive(self, which: list[int], most: int) -> None:
        for adapter in which:
            self._arrives(adapter, most)

    @rule(turns=st.integers(1, 60), favourite=st.integers(0, len(ADAPTERS) - 1))
    def go_on_while_one_adapter_is_in_fashion(self, turns: int, favourite: int) -> None:
        for _ in range(turns):
            self._arrives(favourite, _LONGEST)
            self._turn()

    @invariant()
    def nobody_is_passed_more_often_than_allowed(self) -> None:
        waiting = self.batcher.waiting if hasattr(self, "batcher") else ()
        assert all(asked.passes <= _PASSES for asked in waiting)

    def teardown(self) -> None:
        """However many come for one adapter from now on, whoever waits by now begins."""
        if not hasattr(self, "batcher"):
            return
        early = list(self.batcher.waiting)
        for _ in range(_SOON * (1 + len(early))):
            if not any(asked in self.batcher.waiting for asked in early):
                return
            self._arrives(0, _LONGEST)
            self._turn()
        raise AssertionError("a request never begins")

    def _arrives(self, adapter: int, most: int) -> None:
        asked = sequence((self.asked % 97, 1, 2), self.asked, most)
        asked.worn = cast(Any, self.worn[adapter]) if adapter >= 0 else None
        self.asked += 1
        self.batcher.take(asked)

    def _turn(self) -> None:
        ring = cast(Ring, self.workers)
        self.wardrobe.lend(ring, self.batcher)
        while len(self.in_flight) < self.lanes and (step := self._composed()) is not None:
            self.step += 1
            self.wardrobe.sent(self.step)
            self.in_flight.append((self.step, step))
        if not self.in_flight:
            self.wardrobe.returned(ring, self.step)
        else:
            number, step = self.in_flight.popleft()
            self._result(step)
            self.wardrobe.returned(ring, number)
        if self.workers.coming:
            self.workers.coming.popleft()()

    def _composed(self) -> Step | None:
        """The next step; nobody wears what workers lack."""
        step = self.batcher.step(self.lanes)
        assert all(s.worn is None or s.worn.key in self.batcher.worn for s in self.batcher.active)
        return step

    def _result(self, step: Step) -> None:
        for asked, life in step.readers:
            if asked.life == life:
                asked.accept(torch.zeros(97), 1)
                if asked.finish_reason:
                    self.batcher.end(asked)


Crowded.TestCase.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
TestCrowded: Any = Crowded.TestCase
