"""A ticket is good for one caller, one worker, one span, until it expires, and can't be forged."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest

from sharedllm.nodes.errors import TicketRefused
from sharedllm.nodes.identity import Authority, Identity, Ticket, issue, verify

NOW = 1_800_000_000


@pytest.fixture
def ticket(worker: Identity, primary: Identity) -> Ticket:
    return Ticket(worker.id, primary.id, "a" * 64, 0, 5, NOW + 600, "b" * 32)


def check(token: str | bytes, authority: Authority, ticket: Ticket, **changes: Any) -> Ticket:
    asked = {"worker": ticket.worker, "caller": ticket.caller, "now": float(NOW), **changes}
    return verify(token, ca_public_key=authority.public_key, **asked)


def segment(data: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()


def signed(authority: Authority, claims: Any, typ: str = "sharedllm-ticket") -> str:
    said = f"{segment({'alg': 'EdDSA', 'typ': typ})}.{segment(claims)}"
    return f"{said}.{base64.urlsafe_b64encode(authority.key.sign(said.encode())).rstrip(b'=').decode()}"


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def test_a_good_ticket_says_what_it_was_issued_for(authority: Authority, ticket: Ticket) -> None:
    assert check(issue(authority, ticket), authority, ticket) == ticket


def test_a_ticket_expires(authority: Authority, ticket: Ticket) -> None:
    with pytest.raises(TicketRefused, match="expired 0 s ago"):
        check(issue(authority, ticket), authority, ticket, now=float(ticket.expires))


def test_a_ticket_for_another_worker_is_refused(authority: Authority, ticket: Ticket) -> None:
    with pytest.raises(TicketRefused, match="is for worker"):
        check(issue(authority, ticket), authority, ticket, worker="c" * 32)


def test_a_ticket_of_another_caller_is_refused(authority: Authority, ticket: Ticket) -> None:
    with pytest.raises(TicketRefused, match="was issued to"):
        check(issue(authority, ticket), authority, ticket, caller="c" * 32)


def test_a_ticket_of_another_authority_is_refused(
    authority: Authority, ticket: Ticket, tmp_path: Path
) -> None:
    forged = issue(Authority.load_or_create(tmp_path / "other"), ticket)
    with pytest.raises(TicketRefused, match="not that of the federation's authority"):
        check(forged, authority, ticket)


def test_a_changed_span_breaks_the_signature(authority: Authority, ticket: Ticket) -> None:
    header, _, signature = issue(authority, ticket).split(".")
    wider = segment({**claims_of(issue(authority, ticket)), "span": [0, 30]})
    with pytest.raises(TicketRefused, match="not that of the federation's authority"):
        check(f"{header}.{wider}.{signature}", authority, ticket)


def test_an_unsigned_ticket_is_refused(authority: Authority, ticket: Ticket) -> None:
    claims = claims_of(issue(authority, ticket))
    for said in ("none", "None", "NONE"):
        with pytest.raises(TicketRefused):
            check(
                f"{segment({'alg': said, 'typ': 'sharedllm-ticket'})}.{segment(claims)}.", authority, ticket
            )


def test_a_ticket_that_takes_the_public_key_for_a_shared_secret_is_refused(
    authority: Authority, ticket: Ticket
) -> None:
    claims = claims_of(issue(authority, ticket))
    for secret in (authority.key.public_pem, authority.key.public_bytes, authority.certificate_pem):
        said = f"{segment({'alg': 'HS256', 'typ': 'sharedllm-ticket'})}.{segment(claims)}"
        mac = (
            base64.urlsafe_b64encode(hmac.digest(secret, said.encode(), hashlib.sha256)).rstrip(b"=").decode()
        )
        with pytest.raises(TicketRefused, match="another algorithm than EdDSA"):
            check(f"{said}.{mac}", authority, ticket)


def test_another_signed_statement_of_the_authority_is_no_ticket(authority: Authority, ticket: Ticket) -> None:
    with pytest.raises(TicketRefused, match="its type is not sharedllm-ticket"):
        check(signed(authority, claims_of(issue(authority, ticket)), "receipt"), authority, ticket)


def test_an_oversize_ticket_is_refused(authority: Authority, ticket: Ticket) -> None:
    with pytest.raises(TicketRefused, match="none is longer than 2048"):
        check("x" * 2049, authority, ticket)


@pytest.mark.parametrize(
    "changes",
    [
        {"span": [5, 5]},
        {"span": [-1, 5]},
        {"span": [0, 1 << 40]},
        {"span": [0, 1, 2]},
        {"span": None},
        {"span": [0.0, 5]},
        {"span": [False, True]},
        {"model": "a" * 63},
        {"model": ["a" * 64]},
        {"aud": ["x"]},
        {"sub": 5},
        {"exp": "soon"},
        {"exp": 1e400},
        {"pipeline": ""},
        {"jti": None},
    ],
)
def test_claims_of_a_wrong_kind_are_refused_even_if_signed(
    authority: Authority, ticket: Ticket, changes: dict[str, Any]
) -> None:
    with pytest.raises(TicketRefused):
        check(signed(authority, {**claims_of(issue(authority, ticket)), **changes}), authority, ticket)


@pytest.mark.parametrize("claims", [{}, [], "ticket", None, 7])
def test_what_has_no_claims_is_refused(authority: Authority, ticket: Ticket, claims: Any) -> None:
    with pytest.raises(TicketRefused):
        check(signed(authority, claims), authority, ticket)


def test_no_sentence_repeats_the_ticket(authority: Authority, ticket: Ticket) -> None:
    token = issue(authority, replace(ticket, expires=NOW - 1))
    with pytest.raises(TicketRefused) as caught:
        check(token, authority, ticket)
    assert token.split(".")[2] not in str(caught.value)
