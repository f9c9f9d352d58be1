"""Who may become a node and stay one: one-time tokens, certificates, renewal, a limit on guessing.

Only the hash of a token's secret is stored. A wrong secret and an unknown token get the same sentence after
the same work, so that nothing is learnt by trying; why a token is no good is said only to who knows its
secret.

*Covered*: two machines that use one token at the same moment (the database decides); guessing (ten attempts a
minute and address, of IPv6 the /64). *Not covered*: many machines behind one address share its attempts;
a stolen key renews its certificate until its node is revoked.
"""

from __future__ import annotations

import collections
import ipaddress
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Engine, delete, insert, select, update

from sharedllm.nodes.coordinator.database import open_database, tokens
from sharedllm.nodes.coordinator.registry import CERTIFICATE_LIFE_S, Registry
from sharedllm.nodes.coordinator.schemas import JoinRequest
from sharedllm.nodes.errors import Busy, JoinRefused, NotAdmitted
from sharedllm.nodes.identity import (
    Authority,
    Peer,
    check_renewal_proof,
    hash_secret,
    new_token,
    node_id,
    secret_matches,
)

__all__ = ["Admission", "Attempts", "create_token", "revoke"]

_NEW_TOKEN = "run `sharedllm token` on the coordinator's machine for a new one"
_NO_SECRET = "0" * 64


class Attempts:
    """At most ``limit`` attempts in ``window_s`` from one address; it remembers at most ``addresses``."""

    def __init__(
        self, clock: Callable[[], float], *, limit: int = 10, window_s: float = 60.0, addresses: int = 10_000
    ) -> None:
        self._clock, self._limit, self._window_s, self._addresses = clock, limit, window_s, addresses
        self._seen: collections.OrderedDict[str, collections.deque[float]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def check(self, address: str) -> None:
        """Count an attempt. Raises ``Busy`` when there were too many."""
        now, network = self._clock(), _network(address)
        with self._lock:
            times = self._seen.setdefault(network, collections.deque(maxlen=self._limit))
            self._seen.move_to_end(network)
            if len(self._seen) > self._addresses:
                self._seen.popitem(last=False)
            if len(times) == self._limit and now - times[0] < self._window_s:
                wait_s = self._window_s - (now - times[0])
                raise Busy(
                    f"More than {self._limit} attempts to join came from this address within "
                    f"{self._window_s:.0f} s; wait {wait_s:.0f} s and try again.",
                    wait_s,
                )
            times.append(now)


class Admission:
    """Makes tokens, and certificates for those who hold one. Safe for many threads."""

    def __init__(self, engine: Engine, registry: Registry, authority: Authority) -> None:
        self._engine, self._registry, self._authority = engine, registry, authority
        self._attempts = Attempts(registry.clock)

    @property
    def ca_pem(self) -> str:
        """The authority's certificate, which every node pins."""
        return self._authority.certificate_pem.decode()

    def create_token(self, *, uses: int = 1, ttl_s: float = 3_600.0) -> str:
        """A new join token; what it holds in secret is shown this once and stored nowhere."""
        now, token = self._registry.clock(), new_token(self._authority.fingerprint)
        row = {"secret_sha256": hash_secret(token.secret), "uses": uses, "expires_s": now + ttl_s}
        with self._engine.begin() as connection:
            connection.execute(delete(tokens).where(tokens.c.expires_s < now - 30 * 24 * 3_600))
            connection.execute(insert(tokens).values(id=token.id, **row))
        return token.format()

    def join(self, request: JoinRequest, address: str) -> dict[str, Any]:
        """Certify the key of who holds a token. Raises ``JoinRefused``, ``Busy`` after too many attempts."""
        self._attempts.check(address)
        public = bytes.fromhex(request.public_key)
        joining = node_id(public)
        now = self._registry.clock()
        with self._registry.writing() as connection:
            row = connection.execute(select(tokens).where(tokens.c.id == request.token_id)).first()
            right = secret_matches(request.secret, row.secret_sha256 if row is not None else _NO_SECRET)
            if row is None or not right:
                raise JoinRefused(f"No such join token was made here; copy all of it, or {_NEW_TOKEN}.")
            if row.expires_s <= now:
                ago_s = now - row.expires_s
                raise JoinRefused(f"This join token expired {ago_s:.0f} s ago; {_NEW_TOKEN}.")
            if self._registry.is_revoked(joining):
                raise JoinRefused(
                    f"Node {joining} was revoked and can't join again; delete its node.key so that it gets a "
                    "new one, and use a new token."
                )
            left = (tokens.c.id == request.token_id) & (tokens.c.uses > 0)
            if connection.execute(update(tokens).where(left).values(uses=tokens.c.uses - 1)).rowcount != 1:
                raise JoinRefused(f"This join token was used already; {_NEW_TOKEN}.")
            certificate = self._issue(public, request.role)
            self._registry.add(connection, joining, request.role, request.name)
        return {"certificate_pem": certificate, "ca_pem": self.ca_pem, "node_id": joining}

    def renew(self, peer: Peer | None, der: bytes | None, proof: dict[str, Any], address: str) -> str:
        """A new certificate for ``peer``, who showed ``der``, or for who proves the key of an expired one.

        Raises ``NotAdmitted`` for a revoked or unknown node and for a bad proof, ``Busy`` after too many.
        """
        if peer is not None and der is not None:
            key = x509.load_der_x509_certificate(der).public_key()
            return self._issue(key.public_bytes(Encoding.Raw, PublicFormat.Raw), peer.role)
        self._attempts.check(address)
        public = check_renewal_proof(proof, self._registry.clock())
        proven = node_id(public)
        member = {node.id: node for node in self._registry.members()}.get(proven)
        if member is None:
            raise NotAdmitted(f"Node {proven} is not, or no longer, a member of this federation; join again.")
        return self._issue(public, member.role)

    def _issue(self, public: bytes, role: str) -> str:
        now = self._registry.clock()
        return self._authority.issue(public, role, seconds=CERTIFICATE_LIFE_S, now=now).decode()


def create_token(
    state: Path, *, uses: int = 1, ttl_s: float = 3_600.0, database_url: str | None = None
) -> str:
    """Make a join token beside a coordinator, running or not, whose state folder is ``state``.

    Raises ``NotAdmitted`` when no coordinator has its state there.
    """
    engine = open_database(_founded(state), database_url)
    try:
        admission = Admission(engine, Registry(engine, clock=time.time), Authority.load_or_create(state))
        return admission.create_token(uses=uses, ttl_s=ttl_s)
    finally:
        engine.dispose()


def revoke(state: Path, id_or_name: str, *, database_url: str | None = None) -> str:
    """Exclude a node beside a coordinator, running or not, and return its id.

    Raises ``NotAdmitted`` when no coordinator has its state there, ``UnknownNode`` when no node is called
    that.
    """
    engine = open_database(_founded(state), database_url)
    try:
        return Registry(engine, clock=time.time).revoke(id_or_name)
    finally:
        engine.dispose()


def _founded(state: Path) -> Path:
    if not (state / "authority.key").exists():
        raise NotAdmitted(
            f"No coordinator has its state in {state}; run this on the coordinator's machine, or name its "
            "folder with --state."
        )
    return state


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return parsed.packed[:8].hex() if mapped is None else str(mapped)
    return str(parsed)
