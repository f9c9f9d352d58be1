"""Nodes are lost in the middle of an answer, in every way; the answer goes on with the same tokens."""

from __future__ import annotations

import pytest

from sharedllm.engines import NotServed
from sharedllm.model import Sampling
from sharedllm.nodes.primary import loop, watch
from tests.unit.nodes.primary import tricks
from tests.unit.nodes.primary.talking import CHANCE, GREEDY, Told, ask, one, prompt
from tests.unit.nodes.primary.threads import Place, Trick

ASKED = prompt(100)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed within a second."""
    for name, value in [("_PING_S", 0.1), ("_PING_OVERDUE_S", 0.1), ("_SILENT_S", 0.6)]:
        monkeypatch.setattr(watch, name, value)
    monkeypatch.setattr(watch, "_SILENT_OVERDUE_S", 0.6)
    monkeypatch.setattr(watch, "_HUNG", 1.0)


def undisturbed(ring: Place, sampling: Sampling = GREEDY) -> list[tuple[int, float]]:
    """What is said while nothing happens, to the last bit of its probabilities."""
    ring.loop.start()
    return heard(one(ring, ASKED, sampling))


def heard(told: Told) -> list[tuple[int, float]]:
    assert told.error is None
    return [(said.token, said.logprob) for said in told.said]


def harm(ring: Place, name: str, trick: Trick, after: int = 9) -> None:
    """Play a trick at a step in the midst of the next answer."""
    node = ring.nodes[name]
    node.tricks[node.steps + after] = trick


@pytest.mark.parametrize(("name", "after"), [("w1", 1), ("w2", 2), ("w1", 3), ("w2", 12)])
def test_a_node_that_dies_does_not_change_the_answer(ring: Place, name: str, after: int) -> None:
    expected = undisturbed(ring)
    harm(ring, name, tricks.dies, after)
    assert heard(one(ring, ASKED)) == expected
    ring.coordinator.wait_for_report("dead", name)
    assert ring.loop.failovers == 1


def test_sampled_text_survives_a_loss_as_well(ring: Place) -> None:
    expected = undisturbed(ring, CHANCE)
    harm(ring, "w2", tricks.dies)
    assert heard(one(ring, ASKED, CHANCE)) == expected


def test_eight_answers_survive_the_same_loss(ring: Place) -> None:
    prompts = [prompt(30 + 20 * i, seed=i) for i in range(8)]
    ring.loop.start()
    expected = [heard(told) for told in ask(ring, *prompts)]
    harm(ring, "w1", tricks.dies, after=20)
    assert [heard(told) for told in ask(ring, *prompts)] == expected


def test_an_answer_survives_one_loss_after_the_other(ring: Place) -> None:
    expected = undisturbed(ring)
    ring.add("w4")
    harm(ring, "w1", tricks.dies, after=6)
    harm(ring, "w3", tricks.dies, after=6)
    told = one(ring, ASKED)
    assert heard(told) == expected
    assert told.stream.failovers >= 1


def test_both_nodes_may_be_lost_at_once(ring: Place) -> None:
    expected = undisturbed(ring)
    ring.add("w4")

    def both(*given: object) -> bool:
        ring.lose("w1", "w2")
        return True

    harm(ring, "w2", both)
    assert heard(one(ring, ASKED)) == expected


def test_one_node_may_take_over_all_layers(ring: Place) -> None:
    expected = undisturbed(ring)
    ring.lose("w3")
    ring.loop.consider(ring.loop.routes.ask(set()))  # spares without it
    harm(ring, "w2", tricks.dies)
    assert heard(one(ring, ASKED)) == expected
    assert [span["stop"] for span in ring.primary.state()["spans"]] == [4]


def test_the_spare_is_taken_while_the_coordinator_is_away(ring: Place) -> None:
    expected = undisturbed(ring)
    ring.coordinator.away = True
    harm(ring, "w1", tricks.dies)
    assert heard(one(ring, ASKED)) == expected
    ring.until(lambda: ring.primary.state()["coordinator"] == "away", "the report fails")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", ["w1", "w2"])
def test_a_node_that_freezes_is_replaced(ring: Place, name: str) -> None:
    expected = undisturbed(ring)
    harm(ring, name, tricks.freezes)
    assert heard(one(ring, ASKED)) == expected
    ring.coordinator.wait_for_report("frozen", name)


@pytest.mark.usefixtures("impatient")
def test_a_node_that_freezes_while_nobody_asks_is_replaced_too(ring: Place) -> None:
    expected = undisturbed(ring)
    ring.nodes["w2"].awake.clear()
    ring.coordinator.wait_for_report("frozen", "w2")
    assert heard(one(ring, ASKED)) == expected


@pytest.mark.usefixtures("impatient")
def test_a_node_that_only_answers_pings_is_replaced(ring: Place) -> None:
    expected = undisturbed(ring)
    harm(ring, "w1", tricks.hangs)
    assert heard(one(ring, ASKED)) == expected
    ring.coordinator.wait_for_report("frozen", "w1")


def test_a_node_that_asks_to_leave_is_relieved_without_being_reported(ring: Place) -> None:
    expected = undisturbed(ring)
    harm(ring, "w1", tricks.leaves)
    assert heard(one(ring, ASKED)) == expected
    assert [span["node"] for span in ring.primary.state()["spans"]] == ["w2", "w3"]
    assert not [r for r in ring.coordinator.reports if r["kind"] != "ok"]


def test_a_node_that_leaves_is_free_of_sessions(ring: Place) -> None:
    undisturbed(ring)
    leaving = ring.nodes["w1"]
    harm(ring, "w1", tricks.leaves)
    one(ring, ASKED)
    ring.until(lambda: not len(leaving.sessions), "its pipeline ends")


@pytest.mark.parametrize("name", ["w1", "w2"])
def test_a_node_that_refuses_its_layers_is_left_out(ring: Place, name: str) -> None:
    ring.nodes[name].refusal = NotServed("Its disk is full.")
    ring.coordinator.with_spares = False
    ring.loop.start()
    assert one(ring, ASKED).error is None
    assert name not in [span["node"] for span in ring.primary.state()["spans"]]
    assert ring.coordinator.asked[-1]["banned"] == [name]


def test_a_slow_node_is_left_when_the_coordinator_knows_better(
    ring: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_ASK_SLOW_S", 0.0)
    expected = undisturbed(ring, Sampling(max_tokens=60))
    ring.nodes["w1"].given = 0.02
    ring.coordinator.token_s = 1e-9
    ring.nodes["w1"] = ring.nodes.pop("w1")  # it comes last in the plans from now on
    told = one(ring, ASKED, Sampling(max_tokens=60))
    assert heard(told) == expected
    ring.coordinator.wait_for_report("slow", "w1")
    ring.until(lambda: ring.loop.ring is not None, "it moves")
    assert [span["node"] for span in ring.primary.state()["spans"]] == ["w2", "w3"]


def test_without_any_node_a_request_waits_and_then_hears_why(
    ring: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_GIVE_UP_S", 0.5)
    ring.lose("w1", "w2", "w3")
    ring.loop.start()
    assert "No node is left" in str(one(ring, ASKED).error)


def test_a_request_that_waits_is_answered_when_a_node_joins(ring: Place) -> None:
    ring.lose("w1", "w2", "w3")
    ring.loop.start()
    ring.until(lambda: "No node" in ring.loop.sentence, "it was asked in vain")
    ring.add("w4")
    assert one(ring, ASKED).error is None
