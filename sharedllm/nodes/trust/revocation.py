"""Expelling a member without a centre: enacted by each node for itself once two thirds of the members signed.

Votes travel as gossip entries. A node counts those of members whose lease it knows and that has not expired,
against all such members but the accused; a member that came a moment ago does not count yet. The seed asked
for two thirds of the *honest* population, which no node can know; two thirds of the known members is what it
can count, and is harder: with a quarter of silent adversaries 89 % of the others must have signed.

*Covered*: a member that votes twice, or about itself; votes of strangers and of members whose lease ended; a
bloc of less than two thirds can't expel anybody. *Not covered*: a bloc of more than a third can keep its own
from being expelled, one of two thirds can expel others; since when a member is here, which only its own lease
says; whether a vote is deserved, which its signer decides. The operator's word (``sharedllm revoke``) needs
no votes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from sharedllm.nodes.gossip import Entry, Kind
from sharedllm.nodes.gossip.leases import since_of
from sharedllm.nodes.identity import is_node_id

__all__ = ["LEAST_SIGNERS", "Docket", "accused_in", "enacted"]

LEAST_SIGNERS = 3


def enacted(votes: Iterable[tuple[str, str]], members: Collection[str]) -> dict[str, frozenset[str]]:
    """Who is expelled by whom: ``votes`` are (signer, accused); at least three signers, and two thirds."""
    signers: dict[str, set[str]] = defaultdict(set)
    known = set(members)
    for signer, accused in votes:
        if signer in known and signer != accused:
            signers[accused].add(signer)
    return {
        accused: frozenset(signed)
        for accused, signed in signers.items()
        if len(signed) >= LEAST_SIGNERS and 3 * len(signed) >= 2 * len(known - {accused})
    }


class Docket:
    """Whom a node has expelled, with the signers that moved it; what was enacted stays enacted.

    Members count once they have been here for ``settled_s``, the time that an accusation and a vote on it
    take; a node that came at ``since_s`` judges nobody before it has been here as long itself, for until then
    it may know of few members but those that a bloc told it of.
    """

    def __init__(self, since_s: float, settled_s: float) -> None:
        self._since_s, self._settled_s = since_s, settled_s
        self.expelled: dict[str, frozenset[str]] = {}

    def review(self, entries: Iterable[Entry], now: float) -> list[str]:
        """Count the votes among ``entries`` that hold at ``now``; the newly expelled, by id."""
        latest_s = now - self._settled_s
        if self._since_s > latest_s:
            return []
        members: set[str] = set()
        votes: list[tuple[str, str]] = []
        for entry in entries:
            if entry.withdrawn or entry.expires_s <= now:
                continue
            if entry.kind is Kind.LEASE and since_of(entry.payload) <= latest_s:
                members.add(entry.issuer_id)
            elif entry.kind is Kind.VOTE and (accused := accused_in(entry)) not in (None, *self.expelled):
                votes.append((entry.issuer_id, str(accused)))
        fresh = enacted(votes, members - set(self.expelled))
        self.expelled.update(fresh)
        return sorted(fresh)


def accused_in(entry: Entry) -> str | None:
    """Whom a vote is about; None if it names no node."""
    accused = entry.key.decode("ascii", errors="replace")
    return accused if is_node_id(accused) else None
