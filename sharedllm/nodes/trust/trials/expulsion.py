"""Revocation by quorum in a simulated network with churn and a bloc that votes against it.

Every node runs the real ``Peer`` and ``Docket``. An honest node accuses one member of the bloc; honest nodes
that hear of it check the evidence and sign as well. The bloc never signs, does not pass such votes on, and
votes for an honest victim whose accusation has no evidence, which honest nodes therefore don't sign.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sharedllm.nodes.gossip import Author, Entry, Kind, Lease, Network, Peer
from sharedllm.nodes.trust.revocation import Docket, accused_in

__all__ = ["Course", "Expulsion"]

_VOTE_ROUNDS = 600.0


@dataclass(frozen=True)
class Course:
    """Shares of honest nodes that expelled the culprit, after each round since the accusation.

    ``settled``: of those here for ``settled_rounds``; ``all``: of everybody, newcomers included. ``false``:
    nodes that expelled anybody else.
    """

    settled: tuple[float, ...]
    all: tuple[float, ...]
    false: int

    def rounds_to(self, share: float) -> int | None:
        """Rounds from which ``settled`` is never below ``share`` again, or None."""
        low = [i for i, value in enumerate(self.settled) if value < share]
        first = low[-1] + 1 if low else 0
        return first + 1 if first < len(self.settled) else None


@dataclass
class _Member:
    author: Author
    lease: bytes
    peer: Peer
    byzantine: bool
    joined: float
    docket: Docket
    signed: set[str] = field(default_factory=set)
    renewed: float = -1e9


class Expulsion:
    """One run: a share of ``nodes`` are a bloc, and each round a share of the honest are replaced."""

    def __init__(
        self,
        nodes: int,
        byzantine: float,
        churn: float,
        seed: int,
        *,
        calls: int,
        lease_rounds: float,
        settled_rounds: float,
    ) -> None:
        self.net = Network(seed, calls=calls)
        self.churn, self.lease_rounds, self.settled_rounds = churn, lease_rounds, settled_rounds
        self.members: dict[int, _Member] = {}
        bloc = round(nodes * byzantine)
        self.net.populate(nodes, lambda number: _Withholding if number < bloc else Peer)
        for number in list(self.net.peers):
            self._enter(number, byzantine=number < bloc)
        self.culprit = self.members[0].author.id
        # one that stays, so that a wrong expulsion can be seen by all
        self.victim = self.members[nodes - 1].author.id
        self._stays = {nodes - 1}
        for _ in range(int(2 * self.settled_rounds)):
            self._round(churning=False)

    def run(self, rounds: int) -> Course:
        """Accuse the culprit, let the bloc accuse its victim, and watch."""
        for member in self.members.values():
            if isinstance(member.peer, _Withholding):
                member.peer.shielded = self.culprit
                self._sign(member, self.victim)
        accuser = min(number for number, member in self.members.items() if not member.byzantine)
        self._sign(self.members[accuser], self.culprit)
        settled, everybody = [], []
        for _ in range(rounds):
            self._round(churning=True)
            honest = [member for member in self.members.values() if not member.byzantine]
            known = [self.culprit in member.docket.expelled for member in honest]
            old = [self.net.now - member.joined >= self.settled_rounds for member in honest]
            settled.append(sum(k and o for k, o in zip(known, old, strict=True)) / max(1, sum(old)))
            everybody.append(sum(known) / len(known))
        honest = [member for member in self.members.values() if not member.byzantine]
        false = sum(bool(set(member.docket.expelled) - {self.culprit}) for member in honest)
        return Course(tuple(settled), tuple(everybody), false)

    def _enter(self, number: int, byzantine: bool) -> None:
        author = self.net.author()
        peer = self.net.peers[number]
        now = self.net.now
        lease = Lease(f"n{number}", "simulated", 1, since_s=now).to_bytes()
        docket = Docket(now, self.settled_rounds)
        self.members[number] = _Member(author, lease, peer, byzantine, now, docket)

    def _round(self, churning: bool) -> None:
        if churning:
            self._churn()
        for member in self.members.values():
            self._act(member)
        self.net.run()
        for member in self.members.values():
            if not member.byzantine:
                member.docket.review(member.peer.contents, self.net.now)

    def _churn(self) -> None:
        honest = [n for n, m in self.members.items() if not m.byzantine and n not in self._stays]
        for number in self.net.draw.sample(honest, round(self.churn * len(honest))):
            self.net.crash(number)
            del self.members[number]
            seeds = self.net.draw.sample(sorted(self.members), 3)
            self._enter(self.net.join(seeds), byzantine=False)

    def _act(self, member: _Member) -> None:
        now, peer = self.net.now, member.peer
        # a newcomer says that it is here once it has heard anything, and can vote from then on
        if now - member.renewed >= self.lease_rounds / 3 and (len(peer.contents) or now == 0):
            member.renewed = now
            peer.add(member.author.issue(Kind.LEASE, b"", member.lease, self.lease_rounds, now), now)
        if member.byzantine:
            return
        for entry in list(peer.live(Kind.VOTE, now)):
            if accused_in(entry) == self.culprit and self.culprit not in member.signed:
                self._sign(member, self.culprit)

    def _sign(self, member: _Member, accused: str) -> None:
        member.signed.add(accused)
        now = self.net.now
        member.peer.add(member.author.issue(Kind.VOTE, accused.encode(), b"", _VOTE_ROUNDS, now), now)


class _Withholding(Peer):
    """A peer of the bloc: it keeps and passes on no vote against its own."""

    shielded: str | None = None

    def add(self, entry: Entry, now: float) -> bool:
        if entry.kind is Kind.VOTE and accused_in(entry) == self.shielded:
            return False
        return super().add(entry, now)
