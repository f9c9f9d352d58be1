"""A withdrawal is its signer's word about one manifest, or it is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.errors import BadManifest
from sharedllm.store import Manifest, specialists
from sharedllm.store.specialists import Signed, Withdrawal, withdraw

KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([i] * 32)) for i in (1, 2))


@pytest.fixture
def signed(base: Manifest) -> Signed:
    return specialists.sign(base, KEY)


def test_it_comes_back_from_its_bytes_and_speaks_of_its_manifest(signed: Signed) -> None:
    read = Withdrawal.from_bytes(withdraw(signed, KEY).to_bytes(), "It")
    assert (read, read.of(signed)) == (withdraw(signed, KEY), True)


def test_it_does_not_speak_of_the_same_manifest_signed_by_another(signed: Signed, base: Manifest) -> None:
    assert not withdraw(signed, KEY).of(specialists.sign(base, OTHER))


def test_another_key_can_not_make_one(signed: Signed) -> None:
    with pytest.raises(BadManifest, match="only who published it can withdraw it"):
        withdraw(signed, OTHER)


@pytest.mark.parametrize("field", ["id", "signer", "signature", "schema"])
def test_no_field_can_be_changed(signed: Signed, field: str) -> None:
    given = json.loads(withdraw(signed, KEY).to_bytes())
    first = "1" if given[field][0] == "0" else "0"
    data = json.dumps(given | {field: first + given[field][1:]}, separators=(",", ":"), sort_keys=True)
    with pytest.raises(BadManifest, match="It is"):
        Withdrawal.from_bytes(data.encode(), "It")


def test_another_signers_name_makes_no_withdrawal(signed: Signed) -> None:
    forged = dataclasses.replace(withdraw(signed, KEY), signer=OTHER.public_key().public_bytes_raw().hex())
    with pytest.raises(BadManifest, match="It is forged"):
        Withdrawal.from_bytes(forged.to_bytes(), "It")


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"x" * 600, b"\xff", b'{"schema":"sharedllm-withdrawal-1"}']
)
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(BadManifest, match="It is no withdrawal"):
        Withdrawal.from_bytes(data, "It")


def test_another_spelling_is_refused(signed: Signed) -> None:
    with pytest.raises(BadManifest, match="canonical"):
        Withdrawal.from_bytes(withdraw(signed, KEY).to_bytes() + b" ", "It")
