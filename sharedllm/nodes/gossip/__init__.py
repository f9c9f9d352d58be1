"""The directory without a centre: members tell each other who is here, what specialists exist, whom to expel.

``Peer`` is a state machine without I/O; ``service`` runs it over the node's own TLS identity, and
``simulation`` under a virtual clock. The coordinator is one more peer: while it is away the others still know
who is here.

What must not happen here: an entry believed before its issuer's certificate and signature are; memory taken
for a length that was not checked; a clock, a socket or a thread in ``peer`` and below; a torch import; a
guess whether a member tells the truth (``sharedllm.nodes.trust``).
Bets that rest on it: b015 (gossip), b066 (revocation).
"""

from __future__ import annotations

from sharedllm.nodes.gossip.contents import Contents, Quotas
from sharedllm.nodes.gossip.entries import Author, Entry, Kind
from sharedllm.nodes.gossip.errors import BadEntry, BadMessage
from sharedllm.nodes.gossip.leases import LEASE_S, Lease
from sharedllm.nodes.gossip.membership import Certified, Keyring, Membership
from sharedllm.nodes.gossip.messages import Message, decode, encode
from sharedllm.nodes.gossip.peer import Peer
from sharedllm.nodes.gossip.service import ROUND_S, Service
from sharedllm.nodes.gossip.simulation import Conditions, Network
from sharedllm.nodes.gossip.view import Contact, View

__all__ = [
    "LEASE_S",
    "ROUND_S",
    "Author",
    "BadEntry",
    "BadMessage",
    "Certified",
    "Conditions",
    "Contact",
    "Contents",
    "Entry",
    "Keyring",
    "Kind",
    "Lease",
    "Membership",
    "Message",
    "Network",
    "Peer",
    "Quotas",
    "Service",
    "View",
    "decode",
    "encode",
]
