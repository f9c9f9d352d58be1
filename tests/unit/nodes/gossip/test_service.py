"""Gossip over real sockets and certificates."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sharedllm.nodes.gossip import Contact, Kind
from sharedllm.nodes.gossip.memory import recall
from sharedllm.nodes.gossip.messages import MESSAGE_BYTES
from sharedllm.nodes.identity import Authority, enrol
from sharedllm.nodes.operations import PortTaken
from tests.unit.nodes.gossip.federation import Members, within


def test_everybody_learns_who_is_here(members: Members) -> None:
    nodes = members.several(4)
    within(lambda: all(len(node.nodes()) == 4 for node in nodes))
    assert {lease.name for lease in nodes[3].nodes().values()} == {"first", "node-1", "node-2", "node-3"}


def test_the_role_is_what_the_certificate_says(members: Members) -> None:
    node = members.start("c", [], identity=members.identity("c", "coordinator"))
    assert [lease.role for lease in node.nodes().values()] == ["coordinator"]


def test_without_the_first_node_the_others_still_know_each_other(members: Members) -> None:
    nodes = members.several(4)
    within(lambda: all(len(node.nodes()) == 4 for node in nodes))
    members.stop(nodes[0])
    entry = nodes[1].say(Kind.VOTE, b"x", b"", 60)
    within(lambda: all(entry.rank in [told.rank for told in node.heard(Kind.VOTE)] for node in nodes[1:]))
    assert len(nodes[3].nodes()) >= 3


def test_who_leaves_is_forgotten_at_once(members: Members) -> None:
    nodes = members.several(3)
    within(lambda: all(len(node.nodes()) == 3 for node in nodes))
    gone = nodes[2].peer.me.id
    members.stop(nodes[2])
    within(lambda: gone not in nodes[0].nodes() and gone not in nodes[1].nodes())


def test_manifests_reach_all(members: Members) -> None:
    first = members.start("first", [], published=lambda: {"ab" * 32: b"{}"})
    second = members.start("second", [first.peer.me])
    within(lambda: second.manifests() == {"ab" * 32: {b"{}"}})


def test_a_revoked_node_is_not_heard(members: Members) -> None:
    revoked = members.identity("revoked")
    first = members.start("first", [], refuses=lambda node: node == revoked.id)
    second = members.start("second", [first.peer.me], identity=revoked)
    third = members.start("third", [first.peer.me])
    within(lambda: len(third.nodes()) == 2 and second.rounds > 5)
    assert revoked.id not in first.nodes()


def test_another_federation_is_not_heard(members: Members, tmp_path: Path) -> None:
    first = members.start("first", [])
    other = Authority.load_or_create(tmp_path / "other")
    stranger = enrol(other, tmp_path / "stranger", "worker")
    second = members.start("stranger", [first.peer.me], identity=stranger)
    within(lambda: second.rounds > 5)
    assert len(first.nodes()) == len(second.nodes()) == 1


def test_a_node_at_another_ones_address_is_not_taken_for_it(members: Members) -> None:
    first = members.start("first", [])
    wrong = Contact("00" * 16, "127.0.0.1", first.peer.me.port)
    second = members.start("second", [wrong])
    within(lambda: second.rounds > 5)
    assert len(second.nodes()) == 1


def test_a_taken_port_is_told(members: Members) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortTaken, match="in use"):
        members.start("first", [], port=taken.getsockname()[1])


def test_a_member_that_announces_too_much_is_hung_up_on(members: Members) -> None:
    first = members.start("first", [])
    thief = members.identity("thief")
    raw = socket.create_connection(("127.0.0.1", first.peer.me.port))
    with raw, thief.wrap_socket(thief.client, raw) as connected:
        connected.settimeout(10)
        connected.do_handshake()
        connected.sendall((MESSAGE_BYTES + 1).to_bytes(4, "big"))
        assert _heard(connected) == b""
    assert len(first.nodes()) == 1


def _heard(connected: socket.socket) -> bytes:
    try:
        return connected.recv(1024)
    except OSError:
        return b""


def test_who_starts_again_asks_those_it_remembers(members: Members, tmp_path: Path) -> None:
    memory, identity = tmp_path / "nodes.json", members.identity("forgetful")
    first = members.start("first", [])
    second = members.start("second", [first.peer.me])
    before = members.start("forgetful", [first.peer.me], identity=identity, memory=memory)
    within(lambda: len(before.nodes()) == 3 and "second" in (memory.read_text() if memory.exists() else ""))
    members.stop(before)
    members.stop(first)
    after = members.start("forgetful", [], identity=identity, memory=memory)
    within(lambda: second.peer.me.id in after.nodes())


@pytest.mark.parametrize("damage", ["", "[]", '{"nodes": {"x": {"host": "h", "port": 1}}}', '{"nodes": 1}'])
def test_a_damaged_memory_counts_as_none(tmp_path: Path, damage: str) -> None:
    (tmp_path / "nodes.json").write_text(damage)
    assert recall(tmp_path / "nodes.json") == []


def test_a_node_that_is_met_later_is_asked(members: Members) -> None:
    first, second = members.start("first", []), members.start("second", [])
    second.meet(first.peer.me)
    within(lambda: len(first.nodes()) == len(second.nodes()) == 2)


def test_what_an_expelled_node_said_is_forgotten(members: Members) -> None:
    revoked: set[str] = set()
    first = members.start("first", [], refuses=lambda node: node in revoked)
    second = members.start("second", [first.peer.me])
    within(lambda: len(first.nodes()) == 2)
    revoked.add(second.peer.me.id)
    first.expel(second.peer.me.id)
    rounds = first.rounds
    within(lambda: first.rounds > rounds + 3)
    assert list(first.nodes()) == [first.peer.me.id]


def test_the_certificate_that_is_renewed_is_shown_with_the_next_lease(members: Members) -> None:
    identity = members.identity("node")
    node = members.start("node", [], identity=identity, lease_s=0.3)
    before = node.heard(Kind.LEASE)[0].certificate
    members.identity("node")
    identity.reload()
    within(lambda: node.heard(Kind.LEASE)[0].certificate != before)
