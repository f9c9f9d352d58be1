"""Which state a new generation goes on from: the newest that enough of its members hold.

A worker that died or was put to sleep in the middle of a round leaves the others half a step apart: some have
applied the round, some have not. Each keeps the state from before its last step, so it can vouch for two. A
state counts as held only if f + 1 workers vouch for its hash, so that f liars can't invent one.

*Covered*: any mixture of workers that have applied the last round and that have not, sleepers from older
generations, newcomers, and up to f liars that claim anything. *Not covered*: more than f liars.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["Claim", "agreed", "outvoted"]


class Claim(NamedTuple):
    """``member`` (its rank) holds the state with this hash, which it had in this generation."""

    member: int
    generation: int
    round: int
    sha256: str


def agreed(claims: Iterable[Claim], liars: int, members: int) -> Claim | None:
    """Return what the members go on from, ``member`` being the first who holds it; None if there is nothing.

    States are ordered by the generation that f + 1 of those who hold it have reached, then by round: f liars
    can move neither a state's rank nor its place. Where fewer than f + 1 members are there, all must agree.
    """
    enough = min(liars + 1, members)
    held: defaultdict[tuple[int, str], dict[int, Claim]] = defaultdict(dict)
    for claim in claims:
        known = held[claim.round, claim.sha256].get(claim.member)
        if known is None or known.generation < claim.generation:
            held[claim.round, claim.sha256][claim.member] = claim
    best: Claim | None = None
    for (round_, sha256), holders in held.items():
        if len(holders) < enough:
            continue
        reached = sorted((claim.generation for claim in holders.values()), reverse=True)[enough - 1]
        found = Claim(min(holders), reached, round_, sha256)
        if best is None or _order(found) > _order(best):
            best = found
    return best


def _order(claim: Claim) -> tuple[int, int, str]:
    # the hash decides between two states that differ in nothing else, so that all members choose the same
    return claim.generation, claim.round, claim.sha256


def outvoted(hashes: Sequence[str]) -> list[int] | None:
    """Return the ranks whose hash is not the strict majority's, or None if there is no such majority."""
    for candidate in set(hashes):
        if 2 * hashes.count(candidate) > len(hashes):
            return [rank for rank, sha256 in enumerate(hashes) if sha256 != candidate]
    return None
