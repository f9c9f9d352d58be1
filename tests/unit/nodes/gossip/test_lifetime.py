"""A service before its start, after its end, over restarts, and when a start fails."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from sharedllm.nodes.gossip import Author, Contact, Kind, Lease, Service
from sharedllm.nodes.gossip.leases import anybody
from sharedllm.nodes.identity import Authority, Identity, NodeKey
from sharedllm.nodes.identity.certificates import read_certificate
from tests.unit.nodes.gossip.federation import Members, within


def idle(identity: Identity) -> Service:
    return Service(identity, lambda host, port: Lease("idle", host, port))


def test_before_its_start_a_node_knows_nobody_and_can_be_told(members: Members) -> None:
    service = idle(members.identity("idle"))
    service.meet(Contact("0" * 32, "127.0.0.1", 1))
    service.expel("1" * 32)
    assert (service.nodes(), service.manifests(), service.heard(Kind.VOTE)) == ({}, {}, [])


def test_what_was_never_started_can_be_stopped(members: Members) -> None:
    idle(members.identity("idle")).stop()


def test_what_has_stopped_can_be_stopped_again(members: Members) -> None:
    service = members.start("node", [])
    members.stop(service)
    service.stop()


def test_a_start_that_fails_says_so_and_does_not_hang(members: Members) -> None:
    def lease(host: str, port: int) -> Lease:
        raise OSError("the shelf is gone")

    with pytest.raises(OSError, match="the shelf is gone"):
        Service(members.identity("node"), lease).start()


def test_an_expelled_node_ends_in_peace(members: Members) -> None:
    identity = members.identity("node")
    service = members.start("node", [], identity=identity, refuses=lambda node: node == identity.id)
    service.stand_by(Kind.VOTE, {b"x": b"y"}, 60)
    members.stop(service)
    assert service.heard(Kind.VOTE) == []


def test_what_was_said_before_a_restart_can_be_taken_back(members: Members) -> None:
    identity, first = members.identity("forgetful"), members.start("first", [])
    before = members.start("forgetful", [first.peer.me], identity=identity)
    before.stand_by(Kind.VOTE, {b"x": b"a mistake"}, 3600)
    within(lambda: len(first.heard(Kind.VOTE)) == 1)
    members.stop(before)
    after = members.start(
        "forgetful",
        [first.peer.me],
        identity=identity,
        each_round=lambda service: service.stand_by(Kind.VOTE, {}, 3600),
    )
    within(lambda: not first.heard(Kind.VOTE) and not after.heard(Kind.VOTE))


def test_what_a_faster_clock_said_is_outdone(members: Members) -> None:
    identity, first = members.identity("hasty"), members.start("first", [])
    before = members.start("hasty", [first.peer.me], identity=identity, clock=lambda: time.time() + 200)
    before.stand_by(Kind.VOTE, {b"x": b"early"}, 3600)
    within(lambda: len(first.heard(Kind.VOTE)) == 1)
    members.stop(before)
    members.start(
        "hasty",
        [first.peer.me],
        identity=identity,
        each_round=lambda service: service.stand_by(Kind.VOTE, {b"x": b"late"}, 3600),
    )
    within(lambda: [vote.payload for vote in first.heard(Kind.VOTE)] == [b"late"])


def test_what_is_published_no_more_is_withdrawn(members: Members) -> None:
    shelf = {"ab" * 32: b"{}"}
    first = members.start("first", [], published=lambda: shelf, lease_s=0.3)
    second = members.start("second", [first.peer.me])
    within(lambda: len(second.manifests()) == 1)
    shelf.clear()
    within(lambda: not second.manifests())


def test_what_stands_is_not_said_again(members: Members) -> None:
    service = members.start("node", [])
    service.stand_by(Kind.VOTE, {b"x": b"y"}, 3600)
    said = service.heard(Kind.VOTE)
    service.stand_by(Kind.VOTE, {b"x": b"y"}, 3600)
    assert service.heard(Kind.VOTE) == said


def test_another_members_false_manifest_does_not_hide_the_true_one(members: Members) -> None:
    first = members.start("first", [], published=lambda: {"ab" * 32: b"{}"})
    second = members.start("second", [first.peer.me])
    second.say(Kind.MANIFEST, b"\xab" * 32, b"[]", 60)
    within(lambda: second.manifests() == {"ab" * 32: {b"{}", b"[]"}})


def test_a_member_is_called_at_the_address_that_it_signed(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path / "authority")
    authors = []
    for name in ("me", "other"):
        key = NodeKey.load_or_create(tmp_path / name)
        pem = authority.issue(key.public_bytes, "worker")
        authors.append(Author(key, read_certificate(pem).public_bytes(Encoding.DER)))
    leases = [
        author.issue(Kind.LEASE, b"", Lease("n", "h", port).to_bytes(), 60, 0.0)
        for port, author in enumerate(authors, 1)
    ]
    assert anybody(leases, authors[0].id) == Contact(authors[1].id, "h", 2)
    assert anybody(leases[:1], authors[0].id) is None


def test_what_is_said_after_a_renewal_comes_with_the_new_certificate(members: Members) -> None:
    identity = members.identity("node")
    service = members.start("node", [], identity=identity, lease_s=60.0)
    members.identity("node")
    identity.reload()
    shown = read_certificate(identity.certificate).public_bytes(Encoding.DER)
    assert service.say(Kind.VOTE, b"x", b"", 3600).certificate == shown
