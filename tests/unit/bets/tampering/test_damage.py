"""Damage is damage, is undone, and a refusal is counted only where there was a sentence."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm import store
from sharedllm.bets.tampering import Alone, Tally, blob_damage, changes, digest, manifest_damage, regions
from sharedllm.bets.tampering import signed_anyway as anyway
from sharedllm.errors import BadModelFile
from sharedllm.model import Config, Transformer, train_tokenizer
from sharedllm.store import Blobs, specialists
from sharedllm.store.specialists import Signed

CONFIG = Config(vocab_size=300, width=16, layers=1, heads=1, kv_heads=1, head_width=16, hidden=16)
KEY, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([i] * 32)) for i in (1, 2))


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signed:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["the river rises in the hills"] * 4, 300)
    model = Transformer(CONFIG)
    body = store.keep_model("tiny", model, tokenizer, licence="MIT", provenance={"seeds": [0], "x": None})
    return specialists.sign(body, KEY)


def damaged(signed: Signed) -> list[tuple[str, bytes]]:
    return list(manifest_damage(signed, KEY, STRANGER, "1" * 64, random.Random(0)))


def test_no_damaged_manifest_is_the_manifest(signed: Signed) -> None:
    assert signed.to_bytes() not in [data for _, data in damaged(signed)]


def test_every_byte_of_a_manifest_is_changed_once(signed: Signed) -> None:
    assert sum(kind == "changed byte" for kind, _ in damaged(signed)) == len(signed.to_bytes())


def test_a_body_that_was_not_changed_is_signed_as_the_publisher_signs_it(signed: Signed) -> None:
    assert anyway(signed.body.to_dict(), KEY) == signed.to_bytes()


def test_each_leaf_is_changed_once() -> None:
    assert list(changes({"a": [1, "a"], "b": {"c": True, "d": None}})) == [
        {"a": [2, "a"], "b": {"c": True, "d": None}},
        {"a": [1, "b"], "b": {"c": True, "d": None}},
        {"a": [1, "a"], "b": {"c": False, "d": None}},
        {"a": [1, "a"], "b": {"c": True, "d": 1}},
    ]


@pytest.mark.parametrize("kind", ["weights_sha256", "tokenizer_sha256"])
def test_regions_cover_every_byte_once(signed: Signed, kind: str) -> None:
    path = Blobs().path(getattr(signed.body, kind))
    assert [at for region in regions(path) for at in region] == list(range(path.stat().st_size))


def test_a_blob_is_never_itself_while_it_is_damaged(signed: Signed) -> None:
    path, other = (Blobs().path(sha256) for sha256 in signed.blobs)
    whole = path.read_bytes()
    for _ in blob_damage(path, other, random.Random(0), 100):
        assert not path.exists() or path.read_bytes() != whole


def test_a_blob_is_whole_after_all_damage(signed: Signed) -> None:
    path, other = (Blobs().path(sha256) for sha256 in signed.blobs)
    kinds = list(blob_damage(path, other, random.Random(0), 3))
    Blobs().verify(path.name)
    assert kinds.count("flipped bit") == 3


@pytest.mark.slow
def test_another_process_finds_the_same_digest(signed: Signed, tmp_path: Path) -> None:
    alone = Alone(tmp_path / "alone")
    alone.take(signed)
    tokens_BT = torch.arange(6)[None]
    assert alone.lived(signed, tokens_BT) == digest(specialists.live(signed).model, tokens_BT)


def refuse() -> None:
    raise BadModelFile("No.")


def crash() -> None:
    raise ZeroDivisionError


def test_only_a_sentence_is_a_refusal() -> None:
    tally = Tally()
    for what in (refuse, crash, str):
        tally.attempt("kind", what)
    assert (tally.refused["kind"], tally.crashed["kind"], tally.accepted) == (1, 1, {"kind": 2})
