"""For every manifest: what is signed comes back and conforms to the schema; what is changed is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.errors import BadManifest
from sharedllm.model import Config
from sharedllm.store import canonical_json, specialists
from sharedllm.store.manifest import AdapterBlob, Manifest
from sharedllm.store.specialists import Signed

SCHEMA = json.loads((Path(specialists.__file__).parent / "manifest.schema.json").read_bytes())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)
SIZES = st.integers(1, 1 << 48)
COUNTS = st.integers(1, 4096)
CONFIGS = st.builds(
    lambda kv_heads, group, half, **more: Config(
        heads=kv_heads * group, kv_heads=kv_heads, head_width=2 * half, **more
    ),
    kv_heads=st.integers(1, 8),
    group=st.integers(1, 4),
    half=st.integers(1, 64),
    vocab_size=COUNTS,
    width=COUNTS,
    layers=COUNTS,
    hidden=COUNTS,
    experts=st.integers(0, 64),
    rope_base=st.floats(1.5, 1e7),
    norm_eps=st.floats(1e-9, 0.5),
    context=COUNTS,
    tied_head=st.booleans(),
)
MANIFESTS = st.builds(
    Manifest,
    name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True),
    config=CONFIGS,
    tokenizer_sha256=HASHES,
    weights_sha256=HASHES,
    sizes=st.fixed_dictionaries({"weights": SIZES, "tokenizer": SIZES}),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    licence=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
    provenance=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), JSON, max_size=3),
    adapter=st.none() | st.builds(AdapterBlob, st.sampled_from(["norm", "lora"]), HASHES, SIZES),
)


@given(MANIFESTS)
def test_what_is_signed_comes_back(body: Manifest) -> None:
    signed = specialists.sign(body, KEY)
    assert Signed.from_bytes(signed.to_bytes(), "x") == signed


@given(MANIFESTS)
def test_what_is_signed_conforms_to_the_schema(body: Manifest) -> None:
    VALIDATOR.validate(json.loads(specialists.sign(body, KEY).to_bytes()))


@given(MANIFESTS)
def test_the_id_is_that_of_the_body_read_back(body: Manifest) -> None:
    assert specialists.sign(body, KEY).id == Manifest.from_bytes(body.to_bytes(), "x").sha256


@given(MANIFESTS, st.data())
def test_any_flipped_bit_is_refused(body: Manifest, data: st.DataObject) -> None:
    whole = bytearray(specialists.sign(body, KEY).to_bytes())
    at, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    whole[at] ^= 1 << bit
    assert refused(bytes(whole))


@given(MANIFESTS, MANIFESTS)
def test_a_signature_is_good_for_one_body_alone(body: Manifest, other: Manifest) -> None:
    signed = specialists.sign(body, KEY)
    moved = dataclasses.replace(signed, body=other)
    assert refused(moved.to_bytes()) == (other.to_bytes() != body.to_bytes())


@given(st.binary(max_size=300) | JSON.map(canonical_json))
def test_what_is_no_manifest_is_one_sentence(data: bytes) -> None:
    assert refused(data)


@settings(max_examples=300)
@given(MANIFESTS, st.data())
def test_what_is_believed_is_what_the_schema_allows(body: Manifest, data: st.DataObject) -> None:
    """A publisher's key signs a body in which one value is any JSON; ours and the schema's word agree.

    But that heads must be a multiple of kv_heads, and numbers finite, which no schema can say.
    """
    said = body.to_dict()
    holder: dict[str, Any] = data.draw(st.sampled_from([said, said["config"], said["sizes"]]))
    holder[data.draw(st.sampled_from(sorted(holder)))] = data.draw(JSON)
    signer, signature = KEY.public_key().public_bytes_raw().hex(), KEY.sign(canonical_json(said)).hex()
    envelope = canonical_json({"body": said, "signer": signer, "signature": signature})
    if not refused(envelope):
        VALIDATOR.validate(json.loads(envelope))


def refused(data: bytes) -> bool:
    try:
        Signed.from_bytes(data, "x")
    except BadManifest:
        return True
    return False
