"""A signed manifest is believed in one form alone, and the schema beside it says the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm import store
from sharedllm.errors import BadManifest
from sharedllm.store import canonical_json, specialists
from sharedllm.store.specialists import Signed

SCHEMA = json.loads((Path(specialists.__file__).parent / "manifest.schema.json").read_bytes())
Change = Callable[[dict[str, Any]], None]


def conforms(envelope: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(envelope))


def signed_anew(signed: Signed, change: Change, key: Ed25519PrivateKey) -> bytes:
    """What a careless publisher would sign and send."""
    body = json.loads(signed.to_bytes())["body"]
    change(body)
    signer, signature = key.public_key().public_bytes_raw().hex(), key.sign(canonical_json(body)).hex()
    return canonical_json({"body": body, "signer": signer, "signature": signature})


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_a_signed_manifest_comes_back(signed: Signed) -> None:
    assert Signed.from_bytes(signed.to_bytes(), "x") == signed


def test_it_conforms_to_the_schema(signed: Signed) -> None:
    assert conforms(json.loads(signed.to_bytes()))


def test_with_an_adapter_it_conforms_to_the_schema(adapted: Signed) -> None:
    assert conforms(json.loads(adapted.to_bytes()))


def test_the_id_is_the_hash_of_the_body_alone(signed: Signed) -> None:
    other = specialists.sign(signed.body, Ed25519PrivateKey.generate())
    assert (other.id, other.signature != signed.signature) == (signed.body.sha256, True)


def test_a_manifest_without_an_adapter_is_written_as_before(base: store.Manifest) -> None:
    assert b"adapter" not in base.to_bytes()


def test_the_shipped_artefact_keeps_its_bytes() -> None:
    shipped = Path(store.__file__).parent / "artefacts" / "toy.json"
    assert store.Manifest.from_bytes(shipped.read_bytes(), "toy").to_bytes() == shipped.read_bytes()


def test_an_adapter_slot_comes_back(adapted: Signed) -> None:
    assert store.Manifest.from_bytes(adapted.body.to_bytes(), "x").adapter == adapted.body.adapter


CHANGES: dict[str, Change] = {
    "a size that is no number": lambda b: b["sizes"].update(weights="many"),
    "a size of zero": lambda b: b["sizes"].update(weights=0),
    "a size that is true": lambda b: b["sizes"].update(weights=True),
    "a size beyond any disk": lambda b: b["sizes"].update(weights=2**60),
    "a third size": lambda b: b["sizes"].update(extra=1),
    "a path for a name": lambda b: b.update(name="../x"),
    "an upper-case hash": lambda b: b.update(weights_sha256="A" * 64),
    "a hash with a line end": lambda b: b.update(tokenizer_sha256="a" * 64 + "\n"),
    "an unknown dtype": lambda b: b.update(dtype="int8"),
    "an empty licence": lambda b: b.update(licence=""),
    "a provenance that is a list": lambda b: b.update(provenance=[]),
    "an unknown field": lambda b: b.update(run="rm -rf /"),
    "a missing field": lambda b: b.pop("licence"),
    "another schema": lambda b: b.update(schema="sharedllm-manifest-2"),
    "an unknown method": lambda b: b.update(adapter={"method": "full", "sha256": "a" * 64, "size": 1}),
    "an adapter without a size": lambda b: b.update(adapter={"method": "norm", "sha256": "a" * 64}),
    "an adapter that is null": lambda b: b.update(adapter=None),
    "a negative number of layers": lambda b: b["config"].update(layers=-1),
    "an odd head": lambda b: b["config"].update(head_width=3),
    "layers that are a float": lambda b: b["config"].update(layers=2.5),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_rightly_signed_body_of_another_form_is_refused_as_the_schema_says(
    signed: Signed, key: Ed25519PrivateKey, what: str
) -> None:
    data = signed_anew(signed, CHANGES[what], key)
    assert not conforms(json.loads(data))
    with pytest.raises(BadManifest, match="x is no signed manifest"):
        Signed.from_bytes(data, "x")


@pytest.mark.parametrize("at", range(0, 700, 23))
def test_any_changed_digit_of_the_file_is_refused(signed: Signed, at: int) -> None:
    data = bytearray(signed.to_bytes())
    data[at] ^= 1
    with pytest.raises(BadManifest):
        Signed.from_bytes(bytes(data), "x")


def test_a_changed_body_is_called_forged(signed: Signed) -> None:
    body = dataclasses.replace(signed.body, licence="Proprietary")
    with pytest.raises(BadManifest, match="forged or was changed"):
        Signed.from_bytes(dataclasses.replace(signed, body=body).to_bytes(), "x")


def test_another_signer_with_the_same_signature_is_refused(signed: Signed) -> None:
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    with pytest.raises(BadManifest, match="forged"):
        Signed.from_bytes(dataclasses.replace(signed, signer=other).to_bytes(), "x")


def test_a_good_signature_of_somebody_else_is_refused_if_signers_are_named(signed: Signed) -> None:
    foreign = specialists.sign(signed.body, Ed25519PrivateKey.generate())
    with pytest.raises(BadManifest, match="none of the keys that you accept"):
        Signed.from_bytes(foreign.to_bytes(), "x", signers=[signed.signer])


def test_an_accepted_signer_is_believed(signed: Signed) -> None:
    assert Signed.from_bytes(signed.to_bytes(), "x", signers=[signed.signer]).id == signed.id


@pytest.mark.parametrize(
    "respelled",
    [
        lambda data: data + b"\n",
        lambda data: b" " + data,
        lambda data: data.replace(b'{"body"', b'{"body":{},"body"', 1),
        lambda data: json.dumps(json.loads(data)).encode(),
        lambda data: data.decode().encode("utf-16"),
        lambda data: data.replace(b"MIT", b"M\\u0049T", 1),
    ],
)
def test_another_spelling_of_the_same_manifest_is_refused(
    signed: Signed, respelled: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(BadManifest):
        Signed.from_bytes(respelled(signed.to_bytes()), "x")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"[" * 4000, b'{"body":NaN}', b"\xff\xfe", b"9" * 4000]
)
def test_what_is_no_manifest_at_all_is_one_sentence(data: bytes) -> None:
    with pytest.raises(BadManifest, match="x is no signed manifest"):
        Signed.from_bytes(data, "x")


def test_four_kilobytes_are_refused_before_they_are_read() -> None:
    with pytest.raises(BadManifest, match="has 4,096 bytes; a signed manifest has < 4,096"):
        Signed.from_bytes(b"[" * 4096, "x")


def test_a_provenance_that_is_too_long_is_not_signed(base: store.Manifest, key: Ed25519PrivateKey) -> None:
    long = dataclasses.replace(base, provenance={"text": "x" * 4000})
    with pytest.raises(BadManifest, match="shorter provenance"):
        specialists.sign(long, key)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, object()])
def test_a_provenance_that_json_can_not_hold_is_not_signed(
    base: store.Manifest, key: Ed25519PrivateKey, value: Any
) -> None:
    with pytest.raises(BadManifest, match="can't be signed"):
        specialists.sign(dataclasses.replace(base, provenance={"loss": value}), key)
