"""Jurisdictions: who counts as being there, and what a route must show."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.trust import OutOfZone, Placement, Zone, check_transit, pass_on, place
from sharedllm.nodes.trust.trials import World

NOW = 100
SHARES = {"small": 0.05, "large": 0.3}


def key() -> NodeKey:
    return NodeKey(Ed25519PrivateKey.generate())


NODE, ATTESTERS = key(), [key() for _ in range(3)]


def zone(quorum: int = 2) -> Zone:
    return Zone("here", [attester.public_bytes for attester in ATTESTERS], quorum)


def placements(count: int = 2, until_s: int = 200) -> list[Placement]:
    return [place(attester, NODE.id, "here", 0, until_s) for attester in ATTESTERS[:count]]


def test_two_of_three_attesters_place_a_node() -> None:
    here = zone()
    here.hear(placements())
    assert here.holds(NODE.id, NOW)


@pytest.mark.parametrize(
    "heard",
    [
        placements(1),
        placements(1) * 2,
        placements(until_s=NOW),
        [place(attester, NODE.id, "there", 0, 200) for attester in ATTESTERS],
        [place(key(), NODE.id, "here", 0, 200) for _ in range(3)],
        [replace(one, node=key().id) for one in placements()],
        [replace(one, until_s=300) for one in placements()],
    ],
    ids=["one", "one twice", "over", "elsewhere", "strangers", "another's", "prolonged"],
)
def test_anything_less_does_not(heard: list[Placement]) -> None:
    here = zone()
    here.hear(heard)
    assert not here.holds(NODE.id, NOW)


def test_an_old_placement_sent_again_does_not_end_a_newer_one() -> None:
    here = zone()
    here.hear([*placements(), *placements(until_s=50)])
    assert here.holds(NODE.id, NOW)


def test_a_placement_ahead_of_time_does_not_end_the_one_that_holds() -> None:
    here = zone()
    here.hear(placements())
    here.hear(place(attester, NODE.id, "here", 150, 400) for attester in ATTESTERS)
    assert here.holds(NODE.id, NOW)
    assert here.holds(NODE.id, 399)


def test_between_two_placements_that_do_not_meet_nothing_holds() -> None:
    here = zone()
    here.hear(placements(until_s=50))
    here.hear(place(attester, NODE.id, "here", 150, 400) for attester in ATTESTERS)
    assert not here.holds(NODE.id, NOW)


def test_a_route_with_a_hop_outside_is_refused_by_name() -> None:
    here, outside = zone(), key()
    here.hear(placements())
    with pytest.raises(OutOfZone, match=outside.id):
        here.require([NODE.id, outside.id], NOW)


def test_a_zone_can_not_ask_for_more_attesters_than_it_has() -> None:
    with pytest.raises(OutOfZone, match="can't ask for 4"):
        zone(quorum=4)


def transit(count: int = 3) -> tuple[list[NodeKey], list[str], dict[str, bytes], list[bytes]]:
    hops = [key() for _ in range(count)]
    route = [hop.id for hop in hops]
    signed = [
        pass_on(hop, b"request", following)
        for hop, following in zip(hops, [*route[1:], route[-1]], strict=True)
    ]
    return hops, route, {hop.id: hop.public_bytes for hop in hops}, signed


def test_a_whole_chain_is_accepted() -> None:
    _, route, keys, signed = transit()
    check_transit(route, keys, b"request", signed)


def test_a_chain_for_another_request_is_refused() -> None:
    _, route, keys, signed = transit()
    with pytest.raises(OutOfZone, match="did not sign"):
        check_transit(route, keys, b"another", signed)


def test_a_chain_with_a_hop_left_out_is_refused() -> None:
    _, route, keys, signed = transit()
    with pytest.raises(OutOfZone, match="2 signatures"):
        check_transit(route, keys, b"request", signed[:2])


def test_a_hop_that_passed_to_somebody_else_is_refused() -> None:
    hops, route, keys, signed = transit()
    signed[0] = pass_on(hops[0], b"request", key().id)
    with pytest.raises(OutOfZone, match=route[0]):
        check_transit(route, keys, b"request", signed)


def test_another_key_under_a_nodes_name_is_refused() -> None:
    _, route, keys, signed = transit()
    keys[route[0]] = key().public_bytes
    with pytest.raises(OutOfZone, match=route[0]):
        check_transit(route, keys, b"request", signed)


@pytest.mark.parametrize(("attested", "leaks"), [(True, False), (False, True)])
def test_liars_are_asked_by_those_who_believe_claims(attested: bool, leaks: bool) -> None:
    tally = World(60, SHARES, 0.3, 0, quorum=2).run(20, 2, attested=attested)
    assert (tally.leaked > 0) is leaks


@pytest.mark.parametrize(("corrupt", "leaks"), [(1, False), (2, True)])
def test_a_quorum_of_corrupt_attesters_is_believed_and_one_is_not(corrupt: int, leaks: bool) -> None:
    tally = World(60, SHARES, 0.3, 0, quorum=2, corrupt=corrupt).run(20, 2)
    assert (tally.leaked > 0) is leaks


def test_a_node_that_relays_is_not_noticed_and_one_that_diverts_is() -> None:
    world = World(60, SHARES, 0.3, 0, quorum=2)
    assert world.run(20, 2, traitors="relay").unnoticed > 0
    diverted = world.run(20, 2, traitors="divert")
    assert (diverted.leaked > 0, diverted.unnoticed) == (True, 0)
