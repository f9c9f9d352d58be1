"""Each broken loop gives other bits, or the comparison with a sound one would prove nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sharedllm.model import Sampling
from sharedllm.nodes.rehearsal import (
    Forgetful,
    Heard,
    Impatient,
    Mixing,
    Plan,
    Recording,
    Rehearsal,
    Stale,
    Swapping,
)

PROMPTS = [tuple(range(start, start + 20)) for start in (100, 300, 500, 700)]
SHORT = Sampling(max_tokens=8)
HALVES: Plan = [("first", 0, 2), ("last", 2, 4)]
WHOLE: Plan = [("spare", 0, 4)]


def answers(
    loop: type[Recording], prompts: list[tuple[int, ...]], prepare: Callable[[Rehearsal], object]
) -> list[Heard]:
    with Rehearsal("toy", [HALVES, WHOLE], loop=loop) as ring:
        prepare(ring)
        return [request.heard(60) for request in [ring.ask(prompt, SHORT) for prompt in prompts]]


def slow(ring: Rehearsal) -> None:
    ring.workers["last"].share = lambda step: 0.3


def dying(ring: Rehearsal) -> None:
    ring.workers["last"].at[5] = ring.workers["last"].kill


@pytest.mark.parametrize("fault", [Stale, Forgetful, Swapping])
def test_a_fault_of_moving_shows_when_a_worker_dies(
    fault: type[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Swapping, "envelope", PROMPTS[1])
    assert answers(fault, PROMPTS[:1], dying) != answers(Recording, PROMPTS[:1], dying)


@pytest.mark.parametrize("fault", [Stale, Swapping])
def test_a_fault_of_moving_is_none_while_all_live(
    fault: type[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Swapping, "envelope", PROMPTS[1])
    assert answers(fault, PROMPTS[:1], lambda ring: None) == answers(
        Recording, PROMPTS[:1], lambda ring: None
    )


def test_impatience_shows_when_results_are_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Impatient, "patience_s", 0.0)
    assert answers(Impatient, PROMPTS[:1], slow) != answers(Recording, PROMPTS[:1], slow)


def test_patience_without_end_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Impatient, "patience_s", 600.0)
    assert answers(Impatient, PROMPTS[:1], slow) == answers(Recording, PROMPTS[:1], slow)


def test_mixed_readers_show_when_two_steps_are_on_their_way() -> None:
    assert answers(Mixing, PROMPTS, lambda ring: None) != answers(Recording, PROMPTS, lambda ring: None)


def test_mixing_is_no_fault_for_one_reader() -> None:
    assert answers(Mixing, PROMPTS[:1], lambda ring: None) == answers(
        Recording, PROMPTS[:1], lambda ring: None
    )
