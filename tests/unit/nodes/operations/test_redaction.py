"""No secret reaches a log, wherever in a record it stands and whatever stands around it."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sharedllm.nodes.operations import logs, redact

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
URLSAFE = st.binary(min_size=32, max_size=32).map(
    lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")
)
JOIN_TOKENS = st.builds(
    lambda ca, ident, secret: (f"SL1-{ca.hex()}-{ident.hex()}-{secret}", secret),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=8, max_size=8),
    URLSAFE,
)
TICKETS = st.dictionaries(st.text(max_size=9), st.text(max_size=30) | st.integers(), max_size=5).map(
    lambda claims: (ticket := jwt.encode({"c": claims}, KEY, "EdDSA"), ticket.split(".")[2])
)
PEMS = st.binary(min_size=32, max_size=32).map(
    lambda seed: (
        pem := Ed25519PrivateKey.from_private_bytes(seed)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode(),
        pem.splitlines()[1],
    )
)
BEARERS = st.tuples(st.sampled_from(["Bearer ", "bearer\t", "BEARER: "]), URLSAFE).map(
    lambda parts: (parts[0] + parts[1], parts[1])
)
SECRETS = JOIN_TOKENS | TICKETS | PEMS | BEARERS
AROUND = st.text(st.characters(codec="utf-8"), max_size=30)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


@given(AROUND, SECRETS, AROUND)
def test_a_secret_is_gone_whatever_stands_around_it(before: str, secret: tuple[str, str], after: str) -> None:
    whole, tell_tale = secret
    assert tell_tale not in redact(f"{before} {whole} {after}")


@given(SECRETS, st.booleans(), st.sampled_from(["message", "argument", "extra", "nested", "exception"]))
def test_no_part_of_a_record_shows_a_secret(secret: tuple[str, str], as_json: bool, place: str) -> None:
    whole, tell_tale = secret
    written = io.StringIO()
    logs.setup("worker", "attic", json=as_json, stream=written)
    log = logging.getLogger("some.library")
    match place:
        case "message":
            log.warning("got " + whole.replace("%", "%%"))
        case "argument":
            log.warning("got %s from %r", whole, {"peer": whole})
        case "extra":
            log.warning("got it", extra={"header": whole})
        case "nested":
            log.warning("got it", extra={"request": {"headers": [("x", whole.encode())]}})
        case "exception":
            try:
                raise ValueError(whole)
            except ValueError:
                log.exception("failed")
    shown = written.getvalue()
    assert "[redacted]" in shown
    assert tell_tale not in shown
    # the repr of a PEM has \n in two characters; its base64 line must be gone all the same
    assert tell_tale not in shown.replace("\\n", "\n")


def test_a_secret_cut_off_at_its_end_is_still_redacted() -> None:
    assert redact("token SL1-abcdef0123") == "token [redacted]"
    assert redact("-----BEGIN PRIVATE KEY-----\nMC4CAQ") == "[redacted]"


def test_a_field_named_secret_is_redacted_whatever_it_holds() -> None:
    written = io.StringIO()
    logs.setup("worker", "attic", json=True, stream=written)
    logging.getLogger("x").warning("joined", extra={"secret": "hunter2", "api_key": "k"})
    assert (
        json.loads(written.getvalue())["secret"] == json.loads(written.getvalue())["api_key"] == "[redacted]"
    )


def test_ordinary_words_stay() -> None:
    text = "sharedllm.nodes.operations: worker attic took layers 10–19 at https://10.0.0.7:8420 in 1.25 s"
    assert redact(text) == text
