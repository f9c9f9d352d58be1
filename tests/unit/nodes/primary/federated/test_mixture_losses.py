"""A worker is lost while specialists answer together: tokens and responsibilities stay the same bits."""

from __future__ import annotations

import pytest

from sharedllm.model import Sampling, Transformer
from sharedllm.nodes.errors import NoPipeline
from sharedllm.nodes.primary import Route, loop
from tests.unit.nodes.primary import tricks
from tests.unit.nodes.primary.federated.choirs import heard, serve, serve_two_bases
from tests.unit.nodes.primary.talking import CHANCE, GREEDY, ask, one, prompt
from tests.unit.nodes.primary.threads import Place, Trick

ASKED = prompt(100)
DIES_IN = {"the prompt": 2, "the prompt's last piece": 6, "the first tokens": 9, "the answer": 25}


def harm(ring: Place, name: str, trick: Trick, after: int) -> None:
    node = ring.nodes[name]
    node.tricks[node.steps + after] = trick


@pytest.mark.parametrize("after", DIES_IN.values(), ids=DIES_IN.keys())
@pytest.mark.parametrize("sampling", [GREEDY, CHANCE], ids=["greedy", "sampled"])
def test_a_node_that_dies_changes_nothing(ring: Place, sampling: Sampling, after: int) -> None:
    serve(ring)
    ring.loop.start()
    undisturbed = heard(one(ring, ASKED, sampling))
    harm(ring, "w2", tricks.dies, after)
    told = one(ring, ASKED, sampling)
    assert heard(told) == undisturbed
    assert (told.stream.failovers, ring.loop.failovers) == (1, 1)


@pytest.mark.parametrize("after", [3, 20])
def test_the_loss_of_one_ring_of_two_changes_nothing(ring: Place, tiny: Transformer, after: int) -> None:
    serve_two_bases(ring, tiny)
    for turning in ring.loops:
        turning.start()
    undisturbed = heard(one(ring, ASKED, CHANCE))
    harm(ring, "w1", tricks.dies, after)
    assert heard(one(ring, ASKED, CHANCE)) == undisturbed


def test_several_mixtures_survive_the_same_loss(ring: Place) -> None:
    serve(ring)
    ring.loop.start()
    prompts = [prompt(30 + 40 * i, seed=i) for i in range(4)]
    undisturbed = [heard(told) for told in ask(ring, *prompts)]
    harm(ring, "w1", tricks.dies, after=25)
    assert [heard(told) for told in ask(ring, *prompts)] == undisturbed


def test_a_move_to_better_nodes_changes_nothing(ring: Place) -> None:
    serve(ring)
    ring.loop.start()
    undisturbed = heard(one(ring, ASKED))

    def moves(*given: object) -> bool:
        ring.loop.consider(ring.loop.routes.ask({"w1"}))
        return False

    harm(ring, "w2", moves, after=12)
    assert heard(one(ring, ASKED)) == undisturbed


def test_a_ring_that_never_opens_ends_the_mixture_with_one_sentence(
    ring: Place, tiny: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_GIVE_UP_S", 0.5)
    serve_two_bases(ring, tiny)
    first, second = ring.loops

    def choose() -> Route:
        raise NoPipeline("Nobody has room for the other base.")

    monkeypatch.setattr(second.routes, "choose", choose)
    first.start()
    second.start()
    assert "Nobody has room" in str(one(ring, ASKED).error)
    ring.until(lambda: not (first.requests or second.requests), "no member is left behind")
