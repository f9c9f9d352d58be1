"""For every set of votes: nobody is expelled by fewer than two thirds, and a further vote saves nobody."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.nodes.gossip import Entry, Kind, Lease
from sharedllm.nodes.identity import node_id
from sharedllm.nodes.trust import Docket, enacted

NODES = [f"{number:032x}" for number in range(9)]
members = st.sets(st.sampled_from(NODES))
votes = st.lists(st.tuples(st.sampled_from(NODES), st.sampled_from(NODES[:4])), max_size=40)


@settings(max_examples=40)
@given(votes, members)
def test_who_is_expelled_is_so_by_two_thirds_of_the_other_members(
    cast: list[tuple[str, str]], here: set[str]
) -> None:
    for accused, signers in enacted(cast, here).items():
        assert signers <= here - {accused}
        assert len(signers) >= max(3, 2 / 3 * len(here - {accused}) - 1e-9)
        assert all((signer, accused) in cast for signer in signers)


@settings(max_examples=40)
@given(votes, members)
def test_whom_two_thirds_accuse_is_expelled(cast: list[tuple[str, str]], here: set[str]) -> None:
    for accused in NODES[:4]:
        signers = {signer for signer, named in cast if named == accused} & here - {accused}
        if len(signers) >= 3 and 3 * len(signers) >= 2 * len(here - {accused}):
            assert enacted(cast, here)[accused] == signers


@settings(max_examples=40)
@given(votes, votes, members)
def test_a_further_vote_saves_nobody(
    cast: list[tuple[str, str]], more: list[tuple[str, str]], here: set[str]
) -> None:
    before, after = enacted(cast, here), enacted([*more, *cast], here)
    assert all(signers <= after[accused] for accused, signers in before.items())


ISSUERS = [bytes([number]) * 32 for number in range(7)]
ACCUSED = [node_id(issuer) for issuer in ISSUERS[:3]]


@st.composite
def claims(draw: st.DrawFn) -> Entry:
    """Leases and votes of a few nodes, some of them senseless."""
    issuer, withdrawn = draw(st.sampled_from(ISSUERS)), draw(st.integers(0, 9)) == 0
    expires_s = draw(st.sampled_from([5, 60, 100]))
    since_s = draw(st.sampled_from([0.0, 0.0, 0.0, 48.0, -1.0, float("inf")]))
    if draw(st.booleans()):
        payload = draw(st.just(Lease("n", "h", 1, since_s=since_s).to_bytes()) | st.binary(max_size=20))
        return Entry(Kind.LEASE, issuer, b"", 1, expires_s, withdrawn, payload, b"", b"")
    key = draw(st.sampled_from(ACCUSED)).encode()
    return Entry(Kind.VOTE, issuer, key, 1, expires_s, withdrawn, b"", b"", b"")


@settings(max_examples=40)
@given(st.lists(st.lists(claims(), max_size=30), max_size=4))
def test_reviews_only_add_to_the_expelled_and_only_by_members_that_signed(heard: list[list[Entry]]) -> None:
    docket = Docket(0.0, 10.0)
    for now, entries in enumerate(heard, 50):
        before = dict(docket.expelled)
        fresh = docket.review(entries, now)
        assert docket.expelled == {**before, **{node: docket.expelled[node] for node in fresh}}
        leased = {entry.issuer_id for entry in entries if entry.kind is Kind.LEASE}
        assert all(docket.expelled[node] <= leased - {node} for node in fresh)
