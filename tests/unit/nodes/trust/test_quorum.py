"""Votes of living nodes: who is out, who hears of it, and what survives a restart or a damaged file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from sharedllm.cli.network.vote import app
from sharedllm.errors import SharedLLMError
from sharedllm.nodes.gossip import Author, Contact, Entry, Kind, Service
from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.trust import BadVote, Quorum, accusations, vote
from tests.unit.nodes.gossip.federation import Members, within

STRANGER = "ab" * 16


class Voter:
    """A member with a state folder, its quorum, and whom it was told to expel."""

    def __init__(self, members: Members, folder: Path, name: str, first: Voter | None) -> None:
        self.state, self.name, self.out = folder / name, name, list[str]()
        self.identity = members.identity(name)
        self.quorum = Quorum(self.state, self.out.append, settled_s=0.05)
        self.service: Service = members.start(
            name,
            [] if first is None else [first.service.peer.me],
            identity=self.identity,
            refuses=self.quorum.expelled,
            each_round=self.quorum.review,
            memory=self.state / "nodes.json",
        )

    @property
    def id(self) -> str:
        return self.identity.id


@pytest.fixture
def voters(tmp_path: Path) -> Iterator[list[Voter]]:
    members = Members(tmp_path)
    first = Voter(members, tmp_path, "first", None)
    yield [first, *[Voter(members, tmp_path, name, first) for name in ("second", "third", "culprit")]]
    for service in list(members.running):
        members.stop(service)


def test_three_of_three_expel_a_fourth_without_a_coordinator(voters: list[Voter]) -> None:
    *honest, culprit = voters
    within(lambda: all(len(voter.service.nodes()) == 4 for voter in voters))
    for voter in honest:
        vote(voter.state, culprit.id, "It answered with other weights.")
    within(lambda: all(voter.out == [culprit.id] for voter in honest))
    assert culprit.out == []


def test_two_votes_of_four_members_are_heard_and_not_enough(voters: list[Voter]) -> None:
    first, second, third, culprit = voters
    within(lambda: all(len(voter.service.nodes()) == 4 for voter in voters))
    for voter in (first, second):
        vote(voter.state, culprit.id, f"{voter.name} says so")
    within(lambda: len(_reasons(third.state, culprit.id)) == 2)
    rounds = third.service.rounds
    within(lambda: third.service.rounds > rounds + 10)
    assert third.out == []


def test_a_vote_that_is_taken_back_is_gone_everywhere(voters: list[Voter]) -> None:
    first, second, *_ = voters
    vote(first.state, STRANGER, "a mistake")
    within(lambda: len(_reasons(second.state, STRANGER)) == 1)
    vote(first.state, STRANGER, None)
    within(lambda: not _reasons(second.state, STRANGER))


def test_who_starts_again_has_still_expelled(tmp_path: Path) -> None:
    (tmp_path / "accused.json").write_text(f'{{"{STRANGER}": {{"reasons": {{"x": ""}}, "expelled": true}}}}')
    assert Quorum(tmp_path, print).expelled(STRANGER)


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"x": 1}', f'{{"{STRANGER}": {{"reasons": 1}}}}'])
def test_a_damaged_file_counts_as_empty(tmp_path: Path, damage: str) -> None:
    (tmp_path / "accused.json").write_text(damage)
    assert accusations(tmp_path) == {}


@pytest.mark.parametrize(("node", "because"), [("attic", "x"), (STRANGER, "x" * 513)])
def test_a_vote_that_others_could_not_read_is_refused(tmp_path: Path, node: str, because: str) -> None:
    with pytest.raises(BadVote):
        vote(tmp_path, node, because)


def test_a_node_votes_against_at_most_64(tmp_path: Path) -> None:
    for i in range(64):
        vote(tmp_path, f"{i:032x}", "x")
    with pytest.raises(BadVote, match="against 64 others"):
        vote(tmp_path, STRANGER, "x")


def filed(by: str, against: list[str]) -> list[Entry]:
    author = Author(NodeKey(Ed25519PrivateKey.generate()), b"")
    return [author.issue(Kind.VOTE, node.encode(), by.encode() * 500, 9e9, 0.0) for node in against]


class Heard:
    """A service that has heard these votes, and says nothing."""

    def __init__(self, votes: list[Entry]) -> None:
        self.votes, self.peer = votes, None

    def heard(self, kind: Kind) -> list[Entry]:
        return self.votes if kind is Kind.VOTE else []

    def stand_by(self, *said: object) -> None:
        return


def test_many_accusations_keep_the_file_readable_and_those_that_most_make(tmp_path: Path) -> None:
    many = [vote for _ in range(11) for vote in filed("\0", [f"{i:032x}" for i in range(200)])]
    most = [vote for _ in range(13) for vote in filed("x", [STRANGER])]
    Quorum(tmp_path, print).review(cast(Service, Heard([*many, *most])))
    assert len(accusations(tmp_path)[STRANGER].reasons) == 13
    assert len(accusations(tmp_path)) == 201


def test_a_full_disk_does_not_keep_an_expelled_node_connected(tmp_path: Path) -> None:
    (tmp_path / "accused.json").write_text(f'{{"{STRANGER}": {{"reasons": {{"x": ""}}, "expelled": true}}}}')
    out: list[str] = []
    quorum = Quorum(tmp_path, out.append)
    (tmp_path / "accused.json").unlink()
    (tmp_path / "accused.json").mkdir()
    service = Heard(filed("x", ["cd" * 16]))
    service.peer = SimpleNamespace(me=Contact("0" * 32, "h", 1))  # type: ignore[assignment]
    with contextlib.suppress(SharedLLMError, OSError):
        quorum.review(cast(Service, service))
    assert out == [STRANGER]


def test_a_reason_that_is_no_unicode_can_be_said(tmp_path: Path) -> None:
    vote(tmp_path, STRANGER, "gar\udcffbled")
    said: list[dict[bytes, bytes]] = []
    service = Heard([])
    service.stand_by = lambda kind, votes, life_s: said.append(votes)  # type: ignore[method-assign,assignment,misc]
    Quorum(tmp_path, print).review(cast(Service, service))
    assert said == [{STRANGER.encode(): b"gar?bled"}]


def test_an_id_is_not_taken_for_a_name(tmp_path: Path) -> None:
    (tmp_path / "nodes.json").write_text(f'{{"nodes": {{"{"cd" * 16}": {{"name": "{STRANGER}"}}}}}}')
    CliRunner().invoke(app, [STRANGER, "--because", "It lied.", "--state", str(tmp_path)])
    assert STRANGER in _text(tmp_path / "votes.json")


def test_the_command_casts_by_name_and_lists_what_was_heard(voters: list[Voter]) -> None:
    first, _, third, culprit = voters
    within(lambda: "culprit" in _text(first.state / "nodes.json"))
    cast = CliRunner().invoke(app, ["culprit", "--because", "It lied.", "--state", str(first.state)])
    assert f"culprit ({culprit.id}) is cast" in cast.output
    within(lambda: len(_reasons(third.state, culprit.id)) == 1)
    within(lambda: "culprit" in _text(third.state / "nodes.json"))
    listed = CliRunner().invoke(app, ["--state", str(third.state)])
    assert listed.output == f"culprit ({culprit.id}): accused\n  first ({first.id}): It lied.\n"


def test_a_vote_without_a_reason_is_refused_by_sentence(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, [STRANGER, "--state", str(tmp_path)])
    assert "Give a vote a reason" in str(answer.exception)


def _reasons(state: Path, node: str) -> dict[str, str]:
    found = accusations(state).get(node)
    return found.reasons if found else {}


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
