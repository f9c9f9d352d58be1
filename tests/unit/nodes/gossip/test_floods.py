"""Members that flood: what they say is bounded before it costs anything, and honest partners are kept."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.nodes.errors import NotAdmitted
from sharedllm.nodes.gossip import Author, BadEntry, BadMessage, Contact, Contents, Entry, Kind, Peer, Quotas
from sharedllm.nodes.gossip.errors import Unwelcome
from sharedllm.nodes.gossip.exchange import Callers
from sharedllm.nodes.gossip.messages import Delta, Digests, Message, decode, encode
from sharedllm.nodes.identity import NodeKey

NOW = 1000.0
ME, PARTNER = (Contact(digit * 32, "127.0.0.1", 1) for digit in "0f")


class Membership:
    """Believes all but one issuer, and counts what it is asked."""

    def __init__(self, error: type[BadEntry] = Unwelcome, issuer: str = "") -> None:
        self.error, self.issuer, self.asked = error, issuer, 0

    def check(self, entry: Entry, now: float) -> None:
        self.asked += 1
        if entry.issuer_id == self.issuer:
            raise self.error("It is not believed here.")


def author() -> Author:
    return Author(NodeKey(Ed25519PrivateKey.generate()), b"")


def votes(by: Author, count: int) -> list[Entry]:
    return [by.issue(Kind.VOTE, b"%d" % i, b"", 60, NOW) for i in range(count)]


def test_what_is_renewed_without_end_takes_no_more_memory() -> None:
    contents, signs = Contents(), author()
    for _ in range(1500):
        contents.add(signs.issue(Kind.VOTE, b"k", b"", 24 * 3600, NOW), NOW)
    assert len(contents._ends) < 1100


def test_what_is_renewed_without_end_still_ends() -> None:
    contents, signs = Contents(), author()
    for _ in range(1500):
        contents.add(signs.issue(Kind.VOTE, b"k", b"", 60, NOW), NOW)
    contents.forget(NOW + 61)
    assert len(contents) == 0


def test_signatures_beyond_a_quota_are_not_checked() -> None:
    membership = Membership()
    peer = Peer(ME, membership, random.Random(1))
    for entry in sorted(votes(author(), 300), key=lambda entry: entry.slot):
        peer.add(entry, NOW)
    assert (membership.asked, len(peer.contents)) == (256, 256)


def test_beyond_a_full_directory_nothing_is_taken() -> None:
    contents = Contents(Quotas(entries=3))
    assert [contents.add(entry, NOW) for entry in votes(author(), 4)] == [True, True, True, False]


@pytest.mark.parametrize(("error", "kept"), [(Unwelcome, True), (BadEntry, False)])
def test_only_who_passes_on_forgeries_is_forgotten(error: type[BadEntry], kept: bool) -> None:
    expelled = author()
    peer = Peer(ME, Membership(error, expelled.id), random.Random(1))
    peer.view.merge(PARTNER, (), NOW)
    try:
        peer.receive(PARTNER.id, Delta((*votes(expelled, 1), *votes(author(), 1)), ()), NOW)
    except BadEntry:
        assert not kept
    assert peer.view.contacts == ((PARTNER,) if kept else ())


def test_an_expelled_ones_entry_does_not_hold_up_the_others() -> None:
    expelled = author()
    peer = Peer(ME, Membership(Unwelcome, expelled.id), random.Random(1))
    peer.receive(PARTNER.id, Delta((*votes(expelled, 1), *votes(author(), 2)), ()), NOW)
    assert len(peer.contents) == 2


SLOT, OTHER = b"s" * 16, b"o" * 16


@pytest.mark.parametrize(
    "message",
    [
        Delta((), (SLOT, OTHER, SLOT)),
        Digests((), (3, 3), ()),
        Digests((), None, ((SLOT, 1, b"v" * 16), (SLOT, 2, b"v" * 16))),
    ],
    ids=["wants", "buckets", "digests"],
)
def test_what_is_asked_for_twice_is_refused(message: Message) -> None:
    with pytest.raises(BadMessage, match="twice"):
        decode(encode(message))


def test_a_caller_without_end_is_refused_until_the_window_ends() -> None:
    callers = Callers(round_s=1.0)
    for _ in range(64):
        callers.admit("a", NOW)
    with pytest.raises(NotAdmitted, match="more often"):
        callers.admit("a", NOW + 1)
    callers.admit("b", NOW + 1)
    callers.admit("a", NOW + 8)


def test_a_node_does_not_call_itself_when_another_uses_its_key() -> None:
    peer = Peer(ME, Membership(), random.Random(1))
    peer.view.merge(ME, (), NOW)
    assert peer.view.contacts == ()


def test_a_chosen_partner_is_called_first() -> None:
    peer = Peer(ME, Membership(), random.Random(1))
    assert [called for called, _ in peer.tick(NOW, PARTNER)] == [PARTNER]
