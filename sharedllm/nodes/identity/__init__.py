"""Who a node is: its key, the federation's authority, certificates, TLS, tickets, and joining with a token.

What must not happen here: a secret in a log, an error, a URL or a process title; a connection below TLS 1.3;
trust in any authority but the federation's own; a secret sent before the other end is proven; a file with a
key that others can read. Nothing here imports torch or an HTTP framework.

Bets that rest on this room: none; every figure that crosses machines does.
"""

from __future__ import annotations

from sharedllm.nodes.identity.authority import Authority, fingerprint
from sharedllm.nodes.identity.certificates import LIFE_S, ROLES, Peer, read_peer
from sharedllm.nodes.identity.files import create_secret, state_root, write_public, write_secret
from sharedllm.nodes.identity.joining import (
    check_renewal_proof,
    coordinator_url,
    enrol,
    join,
    renew,
    renewal_proof,
)
from sharedllm.nodes.identity.keys import NodeKey, is_node_id, node_id
from sharedllm.nodes.identity.tickets import TICKET_BYTES, Ticket, issue, verify
from sharedllm.nodes.identity.tls import COORDINATOR_NAME, Identity, client_context, server_context
from sharedllm.nodes.identity.token import JoinToken, hash_secret, new_token, parse_token, secret_matches

__all__ = [
    "COORDINATOR_NAME",
    "LIFE_S",
    "ROLES",
    "TICKET_BYTES",
    "Authority",
    "Identity",
    "JoinToken",
    "NodeKey",
    "Peer",
    "Ticket",
    "check_renewal_proof",
    "client_context",
    "coordinator_url",
    "create_secret",
    "enrol",
    "fingerprint",
    "hash_secret",
    "is_node_id",
    "issue",
    "join",
    "new_token",
    "node_id",
    "parse_token",
    "read_peer",
    "renew",
    "renewal_proof",
    "secret_matches",
    "server_context",
    "state_root",
    "verify",
    "write_public",
    "write_secret",
]
