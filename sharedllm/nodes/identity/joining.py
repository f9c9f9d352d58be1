"""Joining a federation with a token, and renewing the certificate ever after.

The order is what makes it safe: fetch the authority's certificate from a stranger, compare its hash with the
token's, connect again trusting that authority alone, check that the other end is its coordinator, and only
then send the secret.

*Covered*: a false coordinator at the right address, one that copies our (public) authority's certificate,
one that never ends its answer; a laptop that slept past its certificate's end. *Not covered*: a token that
leaks before it is used; it is good for one join and an hour by default.
"""

from __future__ import annotations

import hmac
import ssl
import time
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature

from sharedllm.nodes.errors import JoinRefused, NotAdmitted
from sharedllm.nodes.identity.authority import Authority, fingerprint
from sharedllm.nodes.identity.certificates import CERTIFICATE_BYTES, LIFE_S
from sharedllm.nodes.identity.exchange import Refused, address_of, exchange
from sharedllm.nodes.identity.files import write_public
from sharedllm.nodes.identity.keys import NodeKey, node_id, read_public_key
from sharedllm.nodes.identity.tls import Identity, check_issued, client_context, pinned_context
from sharedllm.nodes.identity.token import JoinToken, parse_token

__all__ = ["check_renewal_proof", "coordinator_url", "enrol", "join", "renew", "renewal_proof"]

_DEADLINE_S = 15.0
_PROOF_LIFE_S = 300.0
_URL_CHARACTERS = 512


def join(
    url: str, token: str | JoinToken, role: str, state: Path, name: str, *, deadline_s: float = _DEADLINE_S
) -> Identity:
    """Make ``state`` a node of the federation at ``url``: key, certificate, authority, address.

    Raises ``JoinRefused`` when the token is no good or the coordinator is not the one that it names,
    ``CoordinatorAway`` when nobody answers, ``WriteFailed`` when ``state`` can't be written.
    """
    parsed = parse_token(token) if isinstance(token, str) else token
    ca = _authority(url, parsed, deadline_s)
    key = NodeKey.load_or_create(state / "node.key")
    asked = {
        "token_id": parsed.id,
        "secret": parsed.secret,
        "public_key": key.public_bytes.hex(),
        "role": role,
        "name": name,
    }
    try:
        answer = exchange(
            url, "POST", "/v1/join", asked, pinned_context(ca), proven=True, deadline_s=deadline_s
        )
        certificate = _text(answer, "certificate_pem")
        if check_issued(certificate, ca, key).role != role:
            raise NotAdmitted(f"The coordinator issued a certificate for another role than {role}.")
    except (Refused, NotAdmitted) as error:
        raise JoinRefused(str(error)) from None
    write_public(state / "ca.crt", ca)
    write_public(state / "coordinator.url", url.encode())
    write_public(state / "node.crt", certificate)
    return Identity.load(state)


def enrol(authority: Authority, state: Path, role: str, *, seconds: float = LIFE_S) -> Identity:
    """Make ``state`` a node of ``authority``'s federation without a network, as a coordinator does itself.

    Raises ``NotAdmitted`` for an unknown role, ``WriteFailed`` when ``state`` can't be written.
    """
    key = NodeKey.load_or_create(state / "node.key")
    certificate = authority.issue(key.public_bytes, role, seconds=seconds)
    write_public(state / "ca.crt", authority.certificate_pem)
    write_public(state / "node.crt", certificate)
    return Identity.load(state)


def renew(identity: Identity, url: str, *, deadline_s: float = _DEADLINE_S) -> None:
    """Get a new certificate from the coordinator, store it, and show it on every new connection.

    With an expired certificate (the machine slept), the key itself is the proof. Raises ``NotAdmitted`` when
    the coordinator refuses (revoked) or is another, ``CoordinatorAway`` when nobody answers.
    """
    now = time.time()
    context: ssl.SSLContext
    if identity.peer.expired(now):
        context, body = pinned_context(identity.ca), renewal_proof(identity.key, now)
    else:
        context, body = client_context(identity), {}
    try:
        answer = exchange(url, "POST", "/v1/renew", body, context, proven=True, deadline_s=deadline_s)
    except Refused as error:
        raise NotAdmitted(str(error)) from None
    certificate = _text(answer, "certificate_pem")
    peer = check_issued(certificate, identity.ca, identity.key)
    if peer.role != identity.role:
        raise NotAdmitted(f"The coordinator renewed this {identity.role}'s certificate for role {peer.role}.")
    write_public(identity.folder / "node.crt", certificate)
    identity.reload()


def renewal_proof(key: NodeKey, now: float) -> dict[str, Any]:
    """What a node with an expired certificate sends to ``/v1/renew`` instead of showing it.

    A replay within its five minutes gains nothing: the answer is a certificate for the same key.
    """
    at = int(now)
    return {
        "public_key": key.public_bytes.hex(),
        "at": at,
        "signature": key.sign(_proof_message(key.public_bytes, at)).hex(),
    }


def check_renewal_proof(proof: dict[str, Any], now: float) -> bytes:
    """The raw public key whose holder made ``proof`` just now; whether that node may renew is the registry's.

    Raises ``NotAdmitted`` when it is forged, stale or malformed.
    """
    try:
        public, signature = bytes.fromhex(proof["public_key"]), bytes.fromhex(proof["signature"])
        at = proof["at"]
        if not isinstance(at, int) or not 0 <= at < 1 << 63:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise NotAdmitted("A renewal without a certificate needs public_key, at and signature.") from None
    if abs(now - at) > _PROOF_LIFE_S:
        raise NotAdmitted(
            f"A renewal is dated {now - at:.0f} s before this machine's clock; set both clocks and try again."
        )
    try:
        read_public_key(public).verify(signature, _proof_message(public, at))
    except InvalidSignature:
        raise NotAdmitted(f"A renewal for node {node_id(public)} is not signed by that node's key.") from None
    return public


def coordinator_url(state: Path) -> str:
    """The coordinator's address that was stored when this node joined.

    Raises ``NotAdmitted`` if there is none, ``CoordinatorAway`` if it is no address.
    """
    path = state / "coordinator.url"
    try:
        with path.open("rb") as file:
            url = file.read(_URL_CHARACTERS).decode().strip()
    except (OSError, UnicodeDecodeError):
        raise NotAdmitted(
            f"The node in {state} has not joined a federation (no coordinator.url). "
            "Run: sharedllm join URL TOKEN."
        ) from None
    address_of(url)
    return url


def _authority(url: str, token: JoinToken, deadline_s: float) -> bytes:
    """The authority's certificate that ``token`` pins, from whoever answers at ``url``."""
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.minimum_version = ssl.TLSVersion.TLSv1_3
    stranger.check_hostname = False
    # nothing secret is sent on this connection, and the hash decides whether what it brings is believed
    stranger.verify_mode = ssl.CERT_NONE
    try:
        ca = _text(
            exchange(url, "GET", "/v1/ca", None, stranger, proven=False, deadline_s=deadline_s), "ca_pem"
        )
        found = fingerprint(ca)
    except (Refused, NotAdmitted) as error:
        raise JoinRefused(f"{url} did not show a federation's authority: {error}") from None
    if not hmac.compare_digest(found, token.fingerprint):
        raise JoinRefused(
            f"The coordinator at {url} has authority {found[:16]}…, but the token is for "
            f"{token.fingerprint[:16]}…. Either the address or the token is of another federation, or "
            "someone is in between. The token's secret was not sent."
        )
    return ca


def _text(answer: dict[str, Any], name: str) -> bytes:
    value = answer.get(name)
    if not isinstance(value, str) or len(value) > CERTIFICATE_BYTES or not value.isascii():
        raise NotAdmitted(f"The coordinator's answer has no usable {name}.")
    return value.encode()


def _proof_message(public: bytes, at: int) -> bytes:
    return b"sharedllm renewal\x00" + public + at.to_bytes(8, "big")
