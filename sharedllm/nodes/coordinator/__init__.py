"""The coordinator: the directory of a federation, its certificate authority, the builder of its pipelines.

A federation has one. Its state is one database, so that a restart loses nothing, and its word travels in what
it signs: certificates and tickets. While it is away, running generations and known pipelines go on.

Must not happen here: a token id, an activation or a prompt; torch; a route that trusts what a body says about
its sender (the certificate says it); a secret in a log. A worker imports this room for its client, so the
server's libraries are loaded only when ``serve`` is asked for.

Bets that rest on it: b005 (handoff), b045 (throttle).
"""

from __future__ import annotations
