"""Slots grow, fork, roll back and end; what does not fit is refused and changes nothing."""

from __future__ import annotations

import pytest
import torch

from sharedllm.engines import BadStep, kv_bytes_per_token
from sharedllm.engines.slots import Slots
from sharedllm.engines.wardrobe import Wardrobe
from sharedllm.wire import Op, Segment
from tests.unit.engines.toys import CONFIGS

CONFIG = CONFIGS["dense"]
LAYERS = 2


def slots(budget: int = 1024) -> Slots:
    return Slots(CONFIG, LAYERS, budget, Wardrobe(torch.ones(2 * LAYERS, CONFIG.width), 0))


def filled(held: Slots, number: int, length: int) -> None:
    """Let a slot hold ``length`` positions of numbers that can be told apart."""
    held.apply(Segment(Op.ROWS, number, 0, length))
    slot = held[number]
    slot.kv.copy_(torch.arange(slot.kv.numel()).view_as(slot.kv) + 1000.0 * number)
    slot.length = length


def state(held: Slots, *numbers: int) -> list[tuple[int, int, torch.Tensor]]:
    return [(held[n].length, held[n].capacity, held[n].kv.clone()) for n in numbers]


def refused(held: Slots, segment: Segment, sentence: str, *numbers: int) -> None:
    """Hold that ``segment`` is refused and that everything is as before."""
    before, used = state(held, *numbers), held.used
    with pytest.raises(BadStep, match=sentence):
        held.apply(segment)
    assert held.used == used
    for (length, capacity, kv), (length_, capacity_, kv_) in zip(before, state(held, *numbers), strict=True):
        assert (length, capacity) == (length_, capacity_)
        assert torch.equal(kv, kv_)


def test_a_slot_is_made_by_its_first_rows_and_holds_none_before_they_are_computed() -> None:
    held = slots()
    held.apply(Segment(Op.CHUNK, 5, 0, 3))
    assert (held[5].length, held[5].capacity) == (0, 64)


def test_growing_keeps_what_is_held() -> None:
    held = slots()
    filled(held, 1, 60)
    before = held[1].kv[:, :, :, :60].clone()
    held.apply(Segment(Op.ROWS, 1, 60, 10))
    assert held[1].capacity == 128
    assert held[1].length == 60
    assert torch.equal(held[1].kv[:, :, :, :60], before)


def test_a_fork_is_a_copy_of_the_beginning_that_lives_on_its_own() -> None:
    held = slots()
    filled(held, 1, 100)
    held.apply(Segment(Op.FORK, 2, 70, source=1))
    before = held[1].kv[:, :, :, :70].clone()
    assert torch.equal(held[2].kv[:, :, :, :70], before)
    held[1].kv.zero_()
    held.apply(Segment(Op.FREE, 1))
    assert torch.equal(held[2].kv[:, :, :, :70], before)
    assert held[2].length == 70


def test_a_rollback_forgets_the_last_positions_and_keeps_the_memory() -> None:
    held = slots()
    filled(held, 1, 100)
    held.apply(Segment(Op.ROLLBACK, 1, 40))
    assert (held[1].length, held[1].capacity) == (60, 128)
    held.apply(Segment(Op.ROLLBACK, 1, 60))
    assert held[1].length == 0


def test_freeing_gives_the_memory_back_and_may_be_said_twice() -> None:
    held = slots()
    filled(held, 1, 100)
    assert (held.used, held.size_bytes) == (128, 128 * kv_bytes_per_token(CONFIG, LAYERS))
    held.apply(Segment(Op.FREE, 1))
    held.apply(Segment(Op.FREE, 1))
    assert (held.used, held.size_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("segment", "sentence"),
    [
        (Segment(Op.ROWS, 1, 11, 1), "begin at position 11, but it holds 10"),
        (Segment(Op.ROWS, 1, 9, 1), "begin at position 9, but it holds 10"),
        (Segment(Op.CHUNK, 9, 4, 1), "begin at position 4, but it holds 0"),
        (Segment(Op.ROLLBACK, 1, 11), "holds 10 positions; 11 can't go back"),
        (Segment(Op.ROLLBACK, 9, 0), "Slot 9 is not in use"),
        (Segment(Op.FORK, 3, 11, source=1), "can't begin with 11 positions of slot 1"),
        (Segment(Op.FORK, 2, 5, source=1), "or it is in use already"),
        (Segment(Op.FORK, 3, 0, source=9), "Slot 9 is not in use"),
        (Segment(Op.ROWS, 1, 10, 191), "would hold 201 positions; the context is 200"),
        (Segment(Op.ROWS, 1, 10, 65_535), "the context is 200"),
        (Segment(Op.ROWS, 3, 0, 65), "needs 128 positions; 128 of 192 are taken"),
        (Segment(Op.ROWS, 1, 10, 119), "needs 192 positions; 64 of 192 are taken"),
    ],
    ids=lambda value: value.op.name if isinstance(value, Segment) else "",
)
def test_what_does_not_fit_is_refused_and_changes_nothing(segment: Segment, sentence: str) -> None:
    held = slots(budget=192)
    filled(held, 1, 10)
    filled(held, 2, 20)
    refused(held, segment, sentence, 1, 2)


def test_memory_that_was_given_back_can_be_taken_by_others() -> None:
    held = slots(budget=64)
    filled(held, 1, 64)
    refused(held, Segment(Op.ROWS, 2, 0, 1), "64 of 64 are taken", 1)
    held.apply(Segment(Op.FREE, 1))
    held.apply(Segment(Op.ROWS, 2, 0, 1))
    assert held.used == 64


def test_a_fork_counts_against_the_budget() -> None:
    held = slots(budget=64)
    filled(held, 1, 64)
    refused(held, Segment(Op.FORK, 2, 1, source=1), "64 of 64 are taken", 1)


def test_a_slot_made_while_computing_can_be_written_to_later() -> None:
    held = slots()
    with torch.inference_mode():
        held.apply(Segment(Op.ROWS, 1, 0, 1))
    assert not held[1].kv.is_inference()
