"""Whom to believe when nobody is in charge: expulsion by quorum, reputation, places, other federations.

Gossip carries what members say and proves who said it; here is what follows from it. Every module but
``quorum``, which acts for a living node, is pure: entries, ratings or documents in, decisions out.

What must not happen here: I/O or a clock outside ``quorum``; a torch import; a decision that rests on what a
node can't know, such as the size of the honest population or where a machine stands.
Bets that rest on it: b066 (revocation), b074 (places), b086 (other federations), b088 (reputation).
"""

from __future__ import annotations

from sharedllm.nodes.trust.crossing import Chain, Equivocation, NotBelieved
from sharedllm.nodes.trust.founders import BadRoot, Key, Root, seal, signers
from sharedllm.nodes.trust.jurisdiction import OutOfZone, Placement, Zone, check_transit, pass_on, place
from sharedllm.nodes.trust.quorum import Accusation, BadVote, Quorum, accusations, vote
from sharedllm.nodes.trust.reputation import ALPHA, BACKING, NEWCOMER, BadRating, Ratings, shares
from sharedllm.nodes.trust.revocation import LEAST_SIGNERS, Docket, accused_in, enacted

__all__ = [
    "ALPHA",
    "BACKING",
    "LEAST_SIGNERS",
    "NEWCOMER",
    "Accusation",
    "BadRating",
    "BadRoot",
    "BadVote",
    "Chain",
    "Docket",
    "Equivocation",
    "Key",
    "NotBelieved",
    "OutOfZone",
    "Placement",
    "Quorum",
    "Ratings",
    "Root",
    "Zone",
    "accusations",
    "accused_in",
    "check_transit",
    "enacted",
    "pass_on",
    "place",
    "seal",
    "shares",
    "signers",
    "vote",
]
