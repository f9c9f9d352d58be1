"""A primary's wish becomes spans, a ticket for every hop, and spares; loads are balanced, memory is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sharedllm.nodes.coordinator.pipelines import LacksHome
from sharedllm.nodes.coordinator.schemas import PipelineReport, PipelineRequest
from sharedllm.nodes.coordinator.status import Coordinator
from sharedllm.nodes.identity import Authority, verify

Wish = Callable[..., PipelineRequest]
P, Q = "0" * 31 + "1", "0" * 31 + "2"
A, B, C = "a" * 32, "b" * 32, "c" * 32
MODEL = "ab" * 32


def used(reply: dict[str, Any]) -> set[str]:
    return {worker["node"] for worker in reply["workers"]}


def test_the_spans_cover_the_model_once(coordinator: Coordinator, wish: Wish, two: Any) -> None:
    reply = coordinator.pipelines.open(P, wish())
    assert [(w["start"], w["stop"]) for w in reply["workers"]] == [(0, 5), (5, 10)]


def test_every_hop_has_a_ticket_of_its_own(
    coordinator: Coordinator, wish: Wish, authority: Authority, two: Any, clock: Any
) -> None:
    reply = coordinator.pipelines.open(P, wish())
    first, second = reply["workers"]
    hops = [
        (first["ticket"], P, first),
        (second["ticket"], P, second),
        (first["next_ticket"], first["node"], second),
    ]
    for token, caller, to in hops:
        ticket = verify(
            token, ca_public_key=authority.public_key, worker=to["node"], caller=caller, now=clock()
        )
        assert (ticket.start, ticket.stop, ticket.model) == (to["start"], to["stop"], MODEL)
        assert (ticket.pipeline, ticket.expires) == (reply["pipeline"], int(clock()) + 600)
    assert second["next_ticket"] is None


def test_a_worker_is_given_with_the_addresses_that_it_reported(
    coordinator: Coordinator, wish: Wish, two: Any
) -> None:
    (endpoint,) = coordinator.pipelines.open(P, wish())["workers"][0]["endpoints"]
    assert (endpoint["kind"], endpoint["host"], endpoint["port"]) == ("lan", "127.0.0.1", 50052)


def test_a_spare_does_without_the_worker_that_it_is_for(
    coordinator: Coordinator, wish: Wish, authority: Authority, two: Any, clock: Any
) -> None:
    two(C, "cellar", memory_bytes=500)
    reply = coordinator.pipelines.open(P, wish())
    assert set(reply["spares"]) == used(reply)
    for lost, spare in reply["spares"].items():
        assert lost not in used(spare)
        for worker in spare["workers"]:
            verify(
                worker["ticket"],
                ca_public_key=authority.public_key,
                worker=worker["node"],
                caller=P,
                now=clock(),
            )


def test_there_is_no_spare_where_the_model_would_have_no_home(
    coordinator: Coordinator, wish: Wish, two: Any
) -> None:
    assert coordinator.pipelines.open(P, wish())["spares"] == {}


def test_epochs_increase_over_spares_and_pipelines(coordinator: Coordinator, wish: Wish, two: Any) -> None:
    two(C, "cellar", memory_bytes=500)
    first, second = (coordinator.pipelines.open(P, wish()) for _ in range(2))
    epochs = [r["epoch"] for r in (first, *first["spares"].values(), second, *second["spares"].values())]
    assert epochs == sorted(set(epochs))


def test_a_model_without_a_home_says_which_layers_and_how_much_memory(
    coordinator: Coordinator, wish: Wish, beat: Any
) -> None:
    beat(A, "attic", memory_bytes=600)
    with pytest.raises(LacksHome, match="Layers 6–9 of 0–9 have no home") as lacking:
        coordinator.pipelines.open(P, wish())
    assert (lacking.value.layers, lacking.value.missing_bytes) == ((6, 10), 400)


def test_who_was_not_asked_is_named_where_the_model_has_no_home(
    coordinator: Coordinator, wish: Wish, beat: Any
) -> None:
    beat(A, "attic", models=[])
    with pytest.raises(LacksHome, match="Left out: attic, because it has no weights of tiny"):
        coordinator.pipelines.open(P, wish())


@pytest.mark.parametrize(
    ("change", "why"), [({"draining": True}, "it is leaving"), ({"models": ["cd" * 32]}, "no weights")]
)
def test_a_worker_that_can_not_serve_is_left_out_with_a_sentence(
    coordinator: Coordinator, wish: Wish, beat: Any, change: dict[str, Any], why: str
) -> None:
    beat(A, "attic")
    beat(B, "barn", **change)
    reply = coordinator.pipelines.open(P, wish())
    assert used(reply) == {A}
    assert [name for name, sentence in reply["left_out"] if why in sentence] == ["barn"]


def test_a_paused_worker_gets_nothing_new(coordinator: Coordinator, wish: Wish, beat: Any) -> None:
    beat(A, "attic")
    beat(B, "barn")
    coordinator.registry.pause("attic")
    assert used(coordinator.pipelines.open(P, wish())) == {B}
    coordinator.registry.pause("attic", paused=False)
    coordinator.registry.pause("barn")
    assert used(coordinator.pipelines.open(P, wish())) == {A}


def test_a_worker_without_a_lease_is_not_asked(
    coordinator: Coordinator, wish: Wish, beat: Any, clock: Any
) -> None:
    beat(A, "attic")
    clock.pass_(10)
    beat(B, "barn")
    assert used(coordinator.pipelines.open(P, wish())) == {B}


def test_no_ticket_is_issued_for_a_revoked_worker(coordinator: Coordinator, wish: Wish, beat: Any) -> None:
    beat(A, "attic")
    beat(B, "barn")
    coordinator.registry.revoke(A)
    assert used(coordinator.pipelines.open(P, wish())) == {B}


def test_workers_that_the_primary_bans_or_does_not_trust_are_not_used(
    coordinator: Coordinator, wish: Wish, beat: Any
) -> None:
    for node, name in ((A, "attic"), (B, "barn"), (C, "cellar")):
        beat(node, name)
    assert used(coordinator.pipelines.open(P, wish(banned=[A], trusted=[A, B]))) == {B}


def test_an_asked_for_spread_uses_that_many(coordinator: Coordinator, wish: Wish, beat: Any) -> None:
    beat(A, "attic")
    beat(B, "barn")
    reply = coordinator.pipelines.open(P, wish(objective={"kind": "spread", "nodes": 2}))
    assert used(reply) == {A, B}


def test_two_primaries_are_given_different_workers(coordinator: Coordinator, wish: Wish, beat: Any) -> None:
    beat(A, "attic", memory_bytes=5_000)
    beat(B, "barn", memory_bytes=5_000)
    first, second = (used(coordinator.pipelines.open(node, wish())) for node in (P, Q))
    assert len(first) == len(second) == 1
    assert first != second


def test_a_primary_that_asks_again_is_not_kept_from_the_worker_by_itself(
    coordinator: Coordinator, wish: Wish, beat: Any
) -> None:
    beat(A, "attic", memory_bytes=1_000)
    first = coordinator.pipelines.open(P, wish())
    again = coordinator.pipelines.open(P, wish(replaces=first["pipeline"]))
    assert used(again) == {A}
    assert len(coordinator.pipelines.in_use()) == 1


def test_two_primaries_share_the_layers_that_a_worker_holds(
    coordinator: Coordinator, wish: Wish, beat: Any
) -> None:
    beat(A, "attic", memory_bytes=10 * 90 + 2 * 10 * 10)
    for node in (P, Q):
        assert used(coordinator.pipelines.open(node, wish())) == {A}


def test_memory_that_was_promised_is_not_promised_twice(
    coordinator: Coordinator, wish: Wish, beat: Any
) -> None:
    beat(A, "attic", memory_bytes=10 * 90 + 10 * 10)
    coordinator.pipelines.open(P, wish())
    with pytest.raises(LacksHome):
        coordinator.pipelines.open(Q, wish())


def test_another_models_weights_are_not_shared(coordinator: Coordinator, wish: Wish, beat: Any) -> None:
    other = "cd" * 32
    beat(A, "attic", memory_bytes=1_900, models=[MODEL, other])
    coordinator.pipelines.open(P, wish())
    with pytest.raises(LacksHome):
        coordinator.pipelines.open(Q, wish(model={"hash": other}))


def test_a_primary_that_is_gone_weighs_on_nobody(
    coordinator: Coordinator, wish: Wish, beat: Any, clock: Any
) -> None:
    beat(A, "attic", memory_bytes=1_000)
    coordinator.pipelines.open(P, wish())
    clock.pass_(10)
    beat(A, "attic", memory_bytes=1_000)
    beat(Q, "sofa", role="primary")
    assert used(coordinator.pipelines.open(Q, wish())) == {A}


def test_a_worker_that_gets_the_weights_it_lacks_is_asked(
    coordinator: Coordinator, wish: Wish, beat: Any
) -> None:
    beat(A, "attic", models=None)
    assert used(coordinator.pipelines.open(P, wish())) == {A}


def test_what_was_measured_is_kept_while_the_spans_are_the_same(
    coordinator: Coordinator, wish: Wish, beat: Any
) -> None:
    beat(A, "attic")
    first = coordinator.pipelines.open(P, wish())["pipeline"]
    coordinator.pipelines.report(P, first, PipelineReport(kind="ok", tokens=5, token_s=0.1))
    coordinator.pipelines.open(P, wish(replaces=first))
    (row,) = coordinator.pipelines.in_use()
    assert row.measured == {"tokens": 5, "token_s": 0.1}
