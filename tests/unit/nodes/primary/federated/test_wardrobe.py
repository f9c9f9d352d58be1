"""Adapters are lent before they are worn, taken back when others need their place, and served by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from sharedllm.adapters import Adapter, Header
from sharedllm.errors import BadAdapter, UnknownName
from sharedllm.model import Sampling, Transformer
from sharedllm.nodes.api.service import Ask
from sharedllm.nodes.errors import NoPipeline
from sharedllm.nodes.primary.batching import Batcher
from sharedllm.nodes.primary.federated.repertoire import Part, Repertoire
from sharedllm.nodes.primary.federated.wardrobe import Wardrobe, Worn
from sharedllm.nodes.primary.ring import Ring
from sharedllm.nodes.primary.sequence import Sequence
from tests.unit.nodes.primary.federated.choirs import delta, specialists
from tests.unit.nodes.primary.talking import ask, one, prompt
from tests.unit.nodes.primary.threads import HASH, Place

ASKED = prompt(70)


class Library:
    """People's adapters, in memory."""

    def __init__(self, **adapters: Adapter) -> None:
        self.adapters = adapters

    def names(self) -> list[str]:
        return sorted(self.adapters)

    def about(self, name: str, /) -> Header:
        adapter = self.load(name)
        return Header(adapter.method, adapter.base_sha256, "fp32", 1, {})

    def load(self, name: str, /) -> Adapter:
        return self.adapters[name]


@pytest.fixture
def library(ring: Place, tiny: Transformer) -> Library:
    made = Library(me=Adapter("norm", HASH, delta(tiny, 4)), you=Adapter("norm", HASH, delta(tiny, 5)))
    ring.primary.repertoire = Repertoire(Part("tiny", HASH, ring.loop), specialists(ring), made)
    return made


class Ready:
    """Workers who hold two adapters, and have them as soon as they are lent."""

    adapters = 2

    def __init__(self) -> None:
        self.lent: list[tuple[int, bool]] = []

    def lend(self, number: int, change: Any, then: Callable[[], object]) -> None:
        self.lent.append((number, change is not None))
        then()


def few(monkeypatch: pytest.MonkeyPatch, most: int) -> list[tuple[int, bool]]:
    """Let workers hold so few adapters; tells which numbers were lent (True) and taken back."""
    lent: list[tuple[int, bool]] = []
    lend = Ring.lend

    def noted(self: Ring, number: int, delta: Any, then: Any) -> None:
        lent.append((number, delta is not None))
        lend(self, number, delta, then)

    monkeypatch.setattr(Ring, "lend", noted)
    monkeypatch.setattr(Ring, "adapters", property(lambda self: most))
    return lent


def test_an_adapter_is_lent_once_however_often_it_is_worn(
    ring: Place, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent = few(monkeypatch, 8)
    ring.loop.start()
    for _ in range(3):
        one(ring, ASKED, model="me")
    assert lent == [(1, True)]


def test_more_adapters_than_workers_hold_are_worn_in_turn(
    ring: Place, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring.loop.start()
    names = ["me", "you", "code", "verse", "scripture"]
    roomy = [one(ring, ASKED, model=name).tokens for name in names]
    ring.loop.consider(ring.loop.routes.ask({"w1"}))  # anew, with nothing lent
    lent = few(monkeypatch, 1)
    assert [one(ring, ASKED, model=name).tokens for name in names * 2] == roomy * 2
    assert len([number for number, there in lent if there]) >= 10
    assert len([number for number, there in lent if not there]) >= 9


def test_more_users_at_once_than_workers_hold_adapters_wait_for_their_turn(
    ring: Place, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring.loop.start()
    alone = {name: one(ring, ASKED, model=name).tokens for name in ("me", "you", "code")}
    ring.loop.consider(ring.loop.routes.ask({"w1"}))
    few(monkeypatch, 1)
    for name, told in alone.items():
        assert one(ring, ASKED, model=name).tokens == told
    told = ask(ring, *[ASKED] * 6, models=["me", "you", "code"] * 2)
    assert [one.tokens for one in told] == list(alone.values()) * 2


@pytest.mark.parametrize(("most", "model", "wears"), [(0, "me", "1 adapter,"), (2, "mixture", "3 adapters,")])
def test_a_request_that_wears_more_than_workers_ever_hold_ends_with_a_sentence(
    ring: Place, library: Library, monkeypatch: pytest.MonkeyPatch, most: int, model: str, wears: str
) -> None:
    few(monkeypatch, most)
    ring.loop.start()
    told = one(ring, ASKED, model=model)
    assert isinstance(told.error, NoPipeline)
    assert f"wears {wears} but W1 has memory for {most}" in str(told.error)
    assert not ring.loop.requests


def test_workers_without_memory_for_adapters_still_serve_the_base(
    ring: Place, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch, 0)
    ring.loop.start()
    assert one(ring, ASKED, model="tiny").tokens


def test_who_came_first_takes_the_place_of_an_adapter_that_only_later_ones_wait_for(ring: Place) -> None:
    ready, batcher, wardrobe = Ready(), Batcher(), Wardrobe()
    worn = {part.name: part.worn for part in specialists(ring)}
    for number, name in [(2, "code"), (2, "verse"), (1, "scripture")]:
        sequence = Sequence(Ask(ASKED, Sampling()), ring.primary.tokenizer, 1024, number)
        sequence.worn = worn[name]
        batcher.take(sequence)
        wardrobe.lend(cast(Ring, ready), batcher)
    wardrobe.sent(1)
    wardrobe.returned(cast(Ring, ready), 1)
    wardrobe.lend(cast(Ring, ready), batcher)
    assert ready.lent == [(1, True), (2, True), (1, False), (3, True)]


def test_an_adapter_that_was_made_a_moment_ago_is_served_at_once(
    ring: Place, library: Library, tiny: Transformer
) -> None:
    with pytest.raises(UnknownName, match=r"new.*is not served here; this server has mixture"):
        one(ring, ASKED, model="new")
    library.adapters["new"] = Adapter("norm", HASH, delta(tiny, 6))
    ring.loop.start()
    assert one(ring, ASKED, model="new").tokens
    assert "new" in [served.name for served in ring.primary.models()]


def test_the_models_are_the_mixture_the_base_the_specialists_and_the_adapters(
    ring: Place, library: Library
) -> None:
    assert [(served.name, served.kind) for served in ring.primary.models()] == [
        ("mixture", "mixture"),
        ("tiny", "base"),
        ("code", "specialist"),
        ("verse", "specialist"),
        ("scripture", "specialist"),
        ("me", "adapter"),
        ("you", "adapter"),
    ]


def test_an_adapter_of_a_specialists_name_does_not_take_its_place(
    ring: Place, library: Library, tiny: Transformer
) -> None:
    library.adapters["code"] = Adapter("norm", HASH, delta(tiny, 7))
    served = ring.primary.served("code")
    assert served is not None
    assert served.kind == "specialist"


@pytest.mark.parametrize(
    ("adapter", "sentence"),
    [
        (Adapter("norm", "ee" * 32, {}), "fitted on another base"),
        (Adapter("lora", HASH, {}), "of the method lora"),
        (Adapter("norm", HASH, {}), "is missing"),
    ],
)
def test_an_adapter_that_can_not_be_worn_is_refused_with_a_sentence(
    ring: Place, library: Library, adapter: Adapter, sentence: str
) -> None:
    library.adapters["odd"] = adapter
    with pytest.raises(BadAdapter, match=sentence):
        one(ring, ASKED, model="odd")


def test_two_adapters_of_the_same_numbers_are_one(ring: Place, tiny: Transformer) -> None:
    def worn(changes: dict[str, Tensor]) -> Worn:
        return Worn.over(ring.loop.model.ends, changes, "me")

    assert worn(delta(tiny, 1)).key == worn(delta(tiny, 1)).key != worn(delta(tiny, 2)).key


def test_one_specialist_alone_is_the_default_and_no_mixture(ring: Place) -> None:
    repertoire = Repertoire(Part("tiny", HASH, ring.loop), specialists(ring, ["code"]))
    assert [served.name for served in repertoire.models()] == ["code", "tiny"]
    assert repertoire.default == "code"


def test_the_base_itself_may_be_a_member(ring: Place) -> None:
    base = Part("tiny", HASH, ring.loop)
    ring.primary.repertoire = Repertoire(base, [base, *specialists(ring, ["code"])])
    ring.loop.start()
    told = one(ring, ASKED, Sampling(max_tokens=4))
    assert all(len(said.responsibilities) == 2 for said in told.said)
    assert torch.tensor([sum(said.responsibilities) for said in told.said]).allclose(torch.ones(4))
