"""Tickets: a signed, expiring right of one caller to use one span of one model on one worker.

An EdDSA JWT (RFC 7519, RFC 8037, checked as RFC 8725 advises), signed by the authority and verified offline
by the worker. A ticket names its caller, and the proxy compares that with the client certificate, so that a
stolen one is worth nothing without the caller's key.

*Covered*: forged, expired, oversize, for another worker or caller, algorithm confusion (``none``, HS256 with
the public key as its secret), claims of the wrong type. *Not covered*: the same caller using a ticket twice
before it expires (that is how it reconnects); what the engine does with the span and the model hash, which
is the engine's to compare.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sharedllm.nodes.errors import TicketRefused
from sharedllm.nodes.identity.authority import Authority
from sharedllm.nodes.identity.keys import is_node_id

if TYPE_CHECKING:
    from jwt.types import Options

__all__ = ["TICKET_BYTES", "Ticket", "issue", "verify"]

TICKET_BYTES = 2048
MAX_LAYERS = 1 << 16

_TYPE = "sharedllm-ticket"
_ALGORITHM = "EdDSA"
_HEX = set("0123456789abcdef")


@dataclass(frozen=True)
class Ticket:
    """``caller`` may use layers ``[start, stop)`` of ``model`` on ``worker`` until ``expires`` (Unix s)."""

    worker: str
    caller: str
    model: str
    start: int
    stop: int
    expires: int
    pipeline: str
    id: str = field(default_factory=lambda: secrets.token_hex(16))

    def __post_init__(self) -> None:
        """Raises ``TicketRefused`` for ids, hashes or spans that can't be."""
        if not (is_node_id(self.worker) and is_node_id(self.caller)):
            raise TicketRefused("A ticket's worker and caller must be node ids, 32 hex digits each.")
        if not (_is_hex(self.model, 64) and _is_hex(self.pipeline, 32) and _is_hex(self.id, 32)):
            raise TicketRefused(
                "A ticket must name a model by 64 hex digits, and a pipeline and itself by 32."
            )
        if not (_is_int(self.start) and _is_int(self.stop) and _is_int(self.expires)):
            raise TicketRefused("A ticket's span and expiry must be whole numbers.")
        if not 0 <= self.start < self.stop <= MAX_LAYERS:
            raise TicketRefused(f"A ticket is for layers [{self.start}, {self.stop}), which is no span.")


def issue(authority: Authority, ticket: Ticket) -> str:
    """``ticket``, signed by the authority."""
    claims = {
        "aud": ticket.worker,
        "sub": ticket.caller,
        "model": ticket.model,
        "span": [ticket.start, ticket.stop],
        "exp": ticket.expires,
        "pipeline": ticket.pipeline,
        "jti": ticket.id,
    }
    return jwt.encode(claims, authority.key.private, algorithm=_ALGORITHM, headers={"typ": _TYPE})


def verify(
    token: str | bytes, *, ca_public_key: Ed25519PublicKey, worker: str, caller: str, now: float
) -> Ticket:
    """The ticket in ``token``, if the authority signed it for this ``worker``, this ``caller`` and ``now``.

    Raises ``TicketRefused`` with the reason; the token itself is never in the sentence.
    """
    if len(token) > TICKET_BYTES:
        raise TicketRefused(f"A ticket has {len(token)} bytes; none is longer than {TICKET_BYTES}.")
    ticket = _ticket(_claims(token, ca_public_key))
    if not hmac.compare_digest(ticket.worker, worker):
        raise TicketRefused(f"This ticket is for worker {ticket.worker}; this is worker {worker}.")
    if not hmac.compare_digest(ticket.caller, caller):
        raise TicketRefused(f"This ticket was issued to {ticket.caller}; {caller} can't use it.")
    if now >= ticket.expires:
        raise TicketRefused(
            f"This ticket expired {now - ticket.expires:.0f} s ago by this worker's clock. Ask the "
            "coordinator for a new pipeline; if it is new, compare the machines' clocks."
        )
    return ticket


def _claims(token: str | bytes, key: Ed25519PublicKey) -> dict[str, Any]:
    # dates and names are compared by verify, which has its own clock and better sentences
    options: Options = {
        "require": ["aud", "sub", "exp", "jti"],
        "verify_exp": False,
        "verify_nbf": False,
        "verify_iat": False,
        "verify_aud": False,
        "verify_iss": False,
        "verify_sub": False,
        "verify_jti": False,
    }
    try:
        # a list of one algorithm: what the token's header asks for is never an instruction
        decoded = jwt.decode_complete(token, key, algorithms=[_ALGORITHM], options=options)
    except jwt.InvalidAlgorithmError:
        raise TicketRefused(
            "This ticket is signed by another algorithm than EdDSA; it is a forgery."
        ) from None
    except jwt.InvalidSignatureError:
        raise TicketRefused("This ticket's signature is not that of the federation's authority.") from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise TicketRefused("What was given as a ticket is not one: it can't be decoded.") from None
    if decoded["header"].get("typ") != _TYPE:
        raise TicketRefused(f"A signed statement was given that is no ticket: its type is not {_TYPE}.")
    claims: dict[str, Any] = decoded["payload"]
    return claims


def _ticket(claims: dict[str, Any]) -> Ticket:
    span = claims.get("span")
    if not isinstance(span, list) or len(span) != 2:
        raise TicketRefused("A ticket names no span of layers.")
    return Ticket(
        worker=claims["aud"],
        caller=claims["sub"],
        model=claims.get("model", ""),
        start=span[0],
        stop=span[1],
        expires=claims["exp"],
        pipeline=claims.get("pipeline", ""),
        id=claims["jti"],
    )


def _is_hex(text: object, digits: int) -> bool:
    return isinstance(text, str) and len(text) == digits and set(text) <= _HEX


def _is_int(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
