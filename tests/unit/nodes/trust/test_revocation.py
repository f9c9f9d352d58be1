"""Expulsion by quorum: two thirds of the known members, and nobody by fewer."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.nodes.gossip import Author, Entry, Kind, Lease
from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.trust import Docket, enacted
from sharedllm.nodes.trust.trials import Expulsion

MEMBERS = [f"m{i}" for i in range(9)]


def votes(count: int, accused: str = "m8") -> list[tuple[str, str]]:
    return [(f"m{i}", accused) for i in range(count)]


def test_two_thirds_of_the_others_expel() -> None:
    assert enacted(votes(6), MEMBERS) == {"m8": frozenset(MEMBERS[:6])}


def test_one_fewer_does_not() -> None:
    assert enacted(votes(5), MEMBERS) == {}


def test_a_member_that_votes_often_counts_once() -> None:
    assert enacted(votes(5) * 3, MEMBERS) == {}


def test_strangers_do_not_count() -> None:
    assert enacted([(f"s{i}", "m8") for i in range(20)], MEMBERS) == {}


def test_the_accused_has_no_vote_and_is_not_counted() -> None:
    assert enacted([*votes(5), ("m8", "m8")], [*MEMBERS[:7], "m8"]) == {"m8": frozenset(MEMBERS[:5])}


def test_two_can_not_expel_a_third() -> None:
    assert enacted([("a", "c"), ("b", "c")], ["a", "b", "c"]) == {}


def filed(since_s: float, lease_life_s: float = 100.0) -> list[Entry]:
    entries: list[Entry] = []
    accused = "ab" * 16
    for _ in range(4):
        author = Author(NodeKey(Ed25519PrivateKey.generate()), b"")
        lease = Lease("n", "h", 1, since_s=since_s).to_bytes()
        entries.append(author.issue(Kind.LEASE, b"", lease, lease_life_s, 50.0))
        entries.append(author.issue(Kind.VOTE, accused.encode(), b"", 100, 50.0))
    return entries


def test_settled_members_expel() -> None:
    assert Docket(0.0, 10.0).review(filed(since_s=20.0), 60.0) == ["ab" * 16]


@pytest.mark.parametrize(
    ("docket", "entries"),
    [
        (Docket(0.0, 10.0), filed(since_s=55.0)),
        (Docket(55.0, 10.0), filed(since_s=20.0)),
        (Docket(0.0, 10.0), filed(since_s=20.0, lease_life_s=5.0)),
    ],
    ids=["members too new", "judge too new", "leases over"],
)
def test_who_is_not_settled_neither_counts_nor_judges(docket: Docket, entries: list[Entry]) -> None:
    assert docket.review(entries, 60.0) == []


def test_a_member_with_an_absurd_lease_does_not_prevent_it() -> None:
    author = Author(NodeKey(Ed25519PrivateKey.generate()), b"")
    absurd = author.issue(Kind.LEASE, b"", b'{"since_s": 1' + b"0" * 400 + b"}", 100, 50.0)
    assert Docket(0.0, 10.0).review([absurd, *filed(since_s=20.0)], 60.0) == ["ab" * 16]


def test_an_expulsion_stays_when_its_votes_are_gone() -> None:
    docket = Docket(0.0, 10.0)
    docket.review(filed(since_s=20.0), 60.0)
    docket.review([], 61.0)
    assert list(docket.expelled) == ["ab" * 16]


def test_a_quarter_that_is_silent_does_not_prevent_it() -> None:
    run = Expulsion(32, 0.25, 0.0, 1, calls=2, lease_rounds=6.0, settled_rounds=6.0)
    course = run.run(16)
    assert (course.settled[-1], course.false) == (1.0, 0)
