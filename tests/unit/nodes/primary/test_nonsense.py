"""Nodes that answer nonsense: it never reaches a reader, and whoever sent it is banned by name."""

from __future__ import annotations

import pytest

from tests.unit.nodes.primary import tricks
from tests.unit.nodes.primary.talking import one, prompt
from tests.unit.nodes.primary.threads import Place, Trick

ASKED = prompt(100)

FROM_THE_LAST = {
    "numbers that are none": tricks.computed(tricks.not_numbers),
    "too many rows": tricks.computed(tricks.too_many_rows),
    "rows of another width": tricks.computed(tricks.too_wide),
    "another step's result": tricks.computed(tricks.other_segments),
    "a body cut short": tricks.computed(tricks.cut_short),
    "a meta that is none": tricks.computed(tricks.no_meta),
    "a step nobody asked for": tricks.computed(tricks.not_asked_for),
    "a frame of another kind": tricks.computed(tricks.another_kind),
    "no frame at all": tricks.no_frame,
}


@pytest.mark.parametrize("trick", FROM_THE_LAST.values(), ids=FROM_THE_LAST.keys())
def test_nonsense_from_the_last_node_changes_nothing_but_the_route(ring: Place, trick: Trick) -> None:
    ring.loop.start()
    expected = one(ring, ASKED)
    last = ring.nodes["w2"]
    last.tricks[last.steps + 9] = trick
    told = one(ring, ASKED)
    assert told.error is None
    assert told.tokens == expected.tokens
    ring.coordinator.wait_for_report("garbage", "w2")
    assert "w2" not in [span["node"] for span in ring.primary.state()["spans"]]


@pytest.mark.parametrize("change", [tricks.not_numbers], ids=["numbers that are none"])
def test_nonsense_between_nodes_is_blamed_on_its_sender(ring: Place, change: tricks.Change) -> None:
    ring.loop.start()
    expected = one(ring, ASKED)
    first = ring.nodes["w1"]
    first.tricks[first.steps + 9] = tricks.computed(change)
    assert one(ring, ASKED).tokens == expected.tokens
    ring.coordinator.wait_for_report("garbage", "w1")


def test_a_result_of_an_epoch_that_is_over_is_never_taken_for_new(ring: Place) -> None:
    ring.loop.start()
    expected = one(ring, ASKED)
    last = ring.nodes["w2"]
    last.tricks.update({last.steps + i: tricks.twice for i in range(1, 30)})
    told = one(ring, ASKED)
    assert (told.tokens, told.stream.failovers) == (expected.tokens, 0)


def test_a_traced_step_without_its_traces_is_nonsense(ring: Place) -> None:
    ring.loop.start()
    one(ring, ASKED)
    last = ring.nodes["w2"]
    last.tricks.update({last.steps + i: tricks.computed(tricks.no_traces) for i in range(1, 9)})
    assert ring.primary.explain(prompt(100, seed=1), 17)["contributions"]
    ring.coordinator.wait_for_report("garbage", "w2")
