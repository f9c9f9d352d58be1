"""Slots wear what was lent to their pipeline, from their first row to their last, and nothing else."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from sharedllm import store
from sharedllm.engines import BadStep, Stage, slots
from sharedllm.engines.ragged import Ragged
from sharedllm.engines.slots import Slots
from sharedllm.engines.wardrobe import Wardrobe
from sharedllm.wire import Adapter, BadFrame, Op, Segment, Want
from tests.unit.engines.toys import CONFIGS, Chain, adapted, delta, stage, toy

CONFIG = CONFIGS["dense"]
H_RD = toy("dense").embed(torch.randint(0, 90, (12,), generator=torch.Generator().manual_seed(1)))
CHUNK = Segment(Op.CHUNK, 1, 0, 9, Want.ALL)
BASE_GD = torch.ones(4, 8)


def chain(number: int = 0) -> Chain:
    return Chain([stage(adapted("dense", number), 0, 2), stage(adapted("dense", number), 2, 4)])


def wear(number: int, slot: int = 1) -> Segment:
    return Segment(Op.WEAR, slot, source=number)


def own(number: int) -> Tensor:
    """What a model computes whose own gains are those of the adapter."""
    return chain(number).step(H_RD[:9], CHUNK)


def adopt(wardrobe: Wardrobe, number: int, *, worn: tuple[int, ...] = ()) -> None:
    body = torch.full((4, 8), float(number)).numpy().tobytes()
    wardrobe.adopt(Adapter(number, hashlib.sha256(body).hexdigest(), 2, 8), body, worn)


def holds(wardrobe: Wardrobe, number: int) -> bool:
    gathered = wardrobe.gains(3, torch.tensor([wardrobe.place(number)]))
    return torch.equal(gathered, torch.full((1, 8), 1.0 + number))


def test_a_slot_computes_what_a_model_with_those_gains_computes() -> None:
    lent = chain()
    lent.lend(7, delta("dense", 2))
    assert torch.equal(lent.step(H_RD[:9], wear(7), CHUNK), own(2))
    assert not torch.equal(own(2), own(0))


@pytest.mark.slow
def test_in_a_pretrained_model_each_row_has_the_bits_of_its_own_adapter() -> None:
    manifest, generator = store.resolve("smollm2-135m"), torch.Generator().manual_seed(1)
    gains = {f"blocks.{i}.{norm}_norm.weight" for i in range(3) for norm in ("attention", "feedforward")}
    deltas = [{name: 0.1 * torch.randn(576, generator=generator) for name in sorted(gains)} for _ in range(4)]
    h_RD = torch.randn(9, 576, generator=generator)
    together = Chain([Stage(store.opened_span(manifest, 0, 3))])
    for number, added in enumerate(deltas, 1):
        together.lend(number, added)
    worn = [wear(number, number) for number in range(5)]
    chunks = [Segment(Op.CHUNK, number, 0, 9, Want.ALL) for number in range(5)]
    mixed = together.step(h_RD.repeat(5, 1), *worn, *chunks).split(9)
    for number, added in enumerate(deltas, 1):
        span = store.opened_span(manifest, 0, 3)
        for name, gain in span.named_parameters():
            if name in added:
                gain.data = gain.data + added[name]
        assert torch.equal(mixed[number], Chain([Stage(span)]).step(h_RD, CHUNK))


def test_the_base_is_worn_by_whom_nobody_dressed() -> None:
    lent = chain()
    lent.lend(7, delta("dense", 2))
    assert torch.equal(lent.step(H_RD[:9], wear(7), wear(0), CHUNK), own(0))
    assert torch.equal(lent.step(H_RD[:9], Segment(Op.CHUNK, 2, 0, 9, Want.ALL)), own(0))


def test_where_nobody_wears_anything_no_gain_is_gathered() -> None:
    held = Slots(CONFIG, 4, 640, Wardrobe(torch.ones(8, CONFIG.width), 1 << 20))
    held.apply(CHUNK)
    assert Ragged(CONFIG, [(CHUNK, held[1])], 0, held.wardrobe).gains is None


def test_a_fork_wears_what_its_source_wears() -> None:
    lent = chain()
    lent.lend(3, delta("dense", 2))
    lent.step(H_RD[:9], wear(3), CHUNK)
    fork, rows = Segment(Op.FORK, 5, 9, source=1), Segment(Op.ROWS, 5, 9, 3, Want.ALL)
    forked = lent.step(H_RD[9:], fork, Segment(Op.FREE, 1), rows)
    alone = chain(2)
    alone.step(H_RD[:9], CHUNK)
    assert torch.equal(alone.step(H_RD[9:], Segment(Op.ROWS, 1, 9, 3, Want.ALL)), forked)


@pytest.mark.parametrize("other", [None, 3])
def test_a_slot_keeps_its_gains_when_their_number_names_others(other: int | None) -> None:
    lent = chain()
    lent.lend(7, delta("dense", 2))
    lent.step(H_RD[:4], wear(7), Segment(Op.CHUNK, 1, 0, 4))
    lent.lend(7, None if other is None else delta("dense", other))
    lent.lend(8, delta("dense", 1))
    rest = lent.step(H_RD[4:9], Segment(Op.CHUNK, 1, 4, 5, Want.ALL))
    alone = chain(2)
    alone.step(H_RD[:4], Segment(Op.CHUNK, 1, 0, 4))
    assert torch.equal(rest, alone.step(H_RD[4:9], Segment(Op.CHUNK, 1, 4, 5, Want.ALL)))


def test_an_empty_slot_may_change_what_it_wears() -> None:
    lent = chain()
    lent.lend(1, delta("dense", 1))
    lent.lend(2, delta("dense", 2))
    lent.step(H_RD[:9], wear(1), CHUNK)
    assert torch.equal(lent.step(H_RD[:9], Segment(Op.ROLLBACK, 1, 9), wear(2), CHUNK), own(2))


@pytest.mark.parametrize(
    ("segment", "sentence"),
    [
        (wear(1), "Slot 1 holds 9 positions that were computed with other gains"),
        (wear(0), "only an empty one can begin to wear adapter 0"),
        (wear(5), "Adapter 5 was not lent to this pipeline"),
        (wear(5, slot=2), "Adapter 5 was not lent"),
    ],
)
def test_what_can_not_be_worn_is_refused_and_changes_nothing(segment: Segment, sentence: str) -> None:
    held = Slots(CONFIG, 4, 640, Wardrobe(BASE_GD, 1 << 10))
    adopt(held.wardrobe, 1)
    held.apply(CHUNK)
    held[1].length = 9
    with pytest.raises(BadStep, match=sentence):
        held.apply(segment)
    assert held[1].wears == 0
    with pytest.raises(BadStep, match="Slot 2 is not in use"):
        held[2]


@pytest.mark.parametrize("op", [Op.WEAR, Op.FORK, Op.ROWS])
def test_slots_that_hold_nothing_are_counted_all_the_same(op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_MOST", 8)
    held = Slots(CONFIG, 4, 640, Wardrobe(BASE_GD, 0))
    for slot in range(8):
        held.apply(wear(0, slot))
    with pytest.raises(BadStep, match="8 slots are in use; free one before slot 9 is begun"):
        held.apply(Segment(op, 9))
    held.apply(Segment(Op.FREE, 7))
    held.apply(Segment(op, 9))


def test_adapters_take_no_more_than_the_memory_that_was_granted() -> None:
    wardrobe = Wardrobe(BASE_GD, 2 * BASE_GD.numel() * 4 + 1)
    adopt(wardrobe, 1)
    adopt(wardrobe, 2)
    with pytest.raises(BadStep, match="holds 2 adapters of 128 bytes, and all are lent or worn"):
        adopt(wardrobe, 3)
    assert holds(wardrobe, 1)
    assert holds(wardrobe, 2)


def test_a_worker_without_memory_for_adapters_says_so() -> None:
    with pytest.raises(BadStep, match="holds 0 adapters"):
        adopt(Wardrobe(BASE_GD, 0), 1)


def test_a_place_that_is_worn_is_given_to_nobody_else() -> None:
    wardrobe = Wardrobe(BASE_GD, 2 * BASE_GD.numel() * 4)
    adopt(wardrobe, 1)
    adopt(wardrobe, 2)
    place = wardrobe.place(1)
    wardrobe.adopt(Adapter(1, "", 0, 8), b"", (place,))
    with pytest.raises(BadStep, match="all are lent or worn"):
        adopt(wardrobe, 3, worn=(place,))
    adopt(wardrobe, 3)
    assert wardrobe.place(3) == place
    assert holds(wardrobe, 3)


def test_to_forget_what_was_never_lent_changes_nothing() -> None:
    wardrobe = Wardrobe(BASE_GD, 1 << 10)
    wardrobe.adopt(Adapter(9, "", 0, 8), b"", ())
    with pytest.raises(BadStep, match="Adapter 9 was not lent"):
        wardrobe.place(9)


BODY = torch.zeros(4, 8).numpy().tobytes()
HASH = hashlib.sha256(BODY).hexdigest()
NAN = torch.full((4, 8), torch.nan).numpy().tobytes()


@pytest.mark.parametrize(
    ("lent", "body", "error", "sentence"),
    [
        (Adapter(0, HASH, 2, 8), BODY, BadStep, "number 0; they go from 1 to 4294967295"),
        (Adapter(1 << 32, HASH, 2, 8), BODY, BadStep, "number 4294967296"),
        (Adapter(1, HASH, 4, 4), BODY, BadStep, "for 4 layers of width 4; this span has 2 of 8"),
        (Adapter(1, "00" * 32, 2, 8), BODY, BadStep, "not what its hash says"),
        (Adapter(1, hashlib.sha256(NAN).hexdigest(), 2, 8), NAN, BadStep, "NaN or infinity"),
        (Adapter(1, HASH, 2, 8), BODY[:-4], BadFrame, "take 128 bytes; 124 came"),
        (Adapter(1, HASH, 1 << 40, 8), BODY, BadFrame, "70,368,744,177,664 bytes; 128 came"),
        (Adapter(1, HASH, 0, 8), BODY, BadFrame, "take 0 bytes; 128 came"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_what_is_no_adapter_of_this_span_is_refused(
    lent: Adapter, body: bytes, error: type[Exception], sentence: str
) -> None:
    wardrobe = Wardrobe(BASE_GD, 1 << 10)
    adopt(wardrobe, 1)
    with pytest.raises(error, match=sentence):
        wardrobe.adopt(lent, body, ())
    assert holds(wardrobe, 1)
