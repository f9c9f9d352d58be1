"""For every ticket: it comes back as it was issued, and no changed byte of it is believed."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.nodes.errors import JoinRefused, TicketRefused
from sharedllm.nodes.identity import Authority, JoinToken, Ticket, hash_secret, issue, parse_token, verify
from sharedllm.nodes.identity.token import secret_matches

NODES = st.text("0123456789abcdef", min_size=32, max_size=32)
HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
SPANS = st.tuples(st.integers(0, 1000), st.integers(1, 1000)).map(lambda pair: (pair[0], sum(pair)))
TICKETS = st.builds(
    lambda worker, caller, model, span, expires, pipeline, id: Ticket(
        worker, caller, model, *span, expires, pipeline, id
    ),
    NODES, NODES, HASHES, SPANS, st.integers(0, 1 << 40), NODES, NODES,
)  # fmt: skip


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.load_or_create(tmp_path_factory.mktemp("authority"))


@settings(max_examples=50, deadline=None)
@given(ticket=TICKETS)
def test_a_ticket_comes_back_as_it_was_issued(authority: Authority, ticket: Ticket) -> None:
    token = issue(authority, ticket)
    found = verify(
        token,
        ca_public_key=authority.public_key,
        worker=ticket.worker,
        caller=ticket.caller,
        now=ticket.expires - 1,
    )
    assert found == ticket
    assert len(token) <= 2048


def bytes_of(token: str) -> list[bytes]:
    return [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split(".")]


@settings(max_examples=100, deadline=None)
@given(ticket=TICKETS, place=st.integers(0, 1 << 16), letter=st.characters(codec="ascii"))
def test_no_changed_ticket_is_believed(authority: Authority, ticket: Ticket, place: int, letter: str) -> None:
    token = issue(authority, ticket)
    place %= len(token)
    changed = token[:place] + letter + token[place + 1 :]
    with contextlib.suppress(ValueError):
        # the last digit of base64 may hold bits that mean nothing
        if bytes_of(changed) == bytes_of(token):
            return
    with pytest.raises(TicketRefused):
        verify(
            changed, ca_public_key=authority.public_key, worker=ticket.worker, caller=ticket.caller, now=0.0
        )


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=300) | st.binary(max_size=300))
def test_noise_is_no_ticket(authority: Authority, text: str | bytes) -> None:
    with pytest.raises(TicketRefused):
        verify(text, ca_public_key=authority.public_key, worker="a" * 32, caller="b" * 32, now=0.0)


@given(
    fingerprint=HASHES,
    id=st.text("0123456789abcdef", min_size=16, max_size=16),
    secret=st.binary(min_size=32, max_size=32),
)
def test_a_join_token_comes_back_as_it_was_printed(fingerprint: str, id: str, secret: bytes) -> None:
    token = JoinToken(fingerprint, id, base64.urlsafe_b64encode(secret).rstrip(b"=").decode())
    assert parse_token(f"  {token.format()}\n") == token
    assert secret_matches(token.secret, hash_secret(token.secret))


@given(text=st.text())
def test_noise_is_no_join_token(text: str) -> None:
    with pytest.raises(JoinRefused):
        parse_token(text)
