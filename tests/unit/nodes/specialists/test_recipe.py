"""The recipe makes what it says it makes, the same each time, and its manifest says how."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm import corpus, store
from sharedllm.corpus.document import book
from sharedllm.errors import UnknownName
from sharedllm.model import Config, Tokenizer, Transformer
from sharedllm.nodes.specialists import trained
from sharedllm.store import specialists
from sharedllm.store.specialists import Signed

CONFIG = Config(vocab_size=300, width=32, layers=1, heads=1, kv_heads=1, head_width=32, hidden=32)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


def written(seed: int) -> tuple[corpus.Document, ...]:
    """Some pages about rivers."""
    draw = random.Random(seed)
    words = ["river", "hill", "rises", "falls", "the", "in", "over", "stone"]
    parts = [(f"page {i}", " ".join(draw.choices(words, k=500))) for i in range(4)]
    return book(f"rivers-{seed}", "nowhere", parts).documents


@pytest.fixture(autouse=True)
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> corpus.Domain:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    store.save("small", Transformer(CONFIG), tokenizer, licence="MIT", provenance={})
    made = corpus.Domain("rivers", written(0), written(1), written(2), licence="CC0-1.0")
    monkeypatch.setattr(corpus, "domain", lambda name: made)
    return made


def adapted(seed: int = 0) -> Signed:
    return trained("rivers", "small", name="wet", private=KEY, tokens=1024, seed=seed)


def test_a_base_of_others_gets_an_adapter() -> None:
    signed = adapted()
    assert signed.body.adapter is not None
    assert signed.body.weights_sha256 == store.resolve("small").weights_sha256


def test_it_is_published_under_its_name() -> None:
    assert adapted() == specialists.find("wet")


def test_its_gains_differ_from_the_bases() -> None:
    assert any(bool(delta.any()) for delta in specialists.deltas(adapted()).values())


def test_its_manifest_says_what_it_was_made_of(domain: corpus.Domain) -> None:
    said = adapted(seed=3).body.provenance
    assert (said["text_sha256"], said["text_licence"]) == (domain.sha256, "CC0-1.0")
    assert (said["seed"], said["tokens"], said["recipe"]["method"]) == (3, 1024, "norm")
    assert said["base"]["name"] == "small"


def test_its_manifest_compares_it_with_the_base_on_the_test_split(domain: corpus.Domain) -> None:
    test = adapted().body.provenance["test"]
    assert test["documents"] == len(domain.test)
    assert set(test["nats_per_token"]) == {"base", "specialist"}


def test_what_is_stated_is_what_a_reader_would_measure() -> None:
    signed = adapted()
    loaded = specialists.live(signed)
    from sharedllm.nodes.specialists.recipe import _tested

    again = _tested(store.load("small"), signed, corpus.domain("rivers"))
    assert again == signed.body.provenance["test"]
    assert loaded.manifest == signed.body


def test_the_same_again_is_the_same_blob() -> None:
    assert adapted().body.adapter == adapted().body.adapter


def test_another_seed_is_another_blob() -> None:
    assert adapted().body.adapter != adapted(seed=1).body.adapter


def test_a_base_of_ours_is_trained_on_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from sharedllm import training

    monkeypatch.setattr(training, "BASES", {"small": training.BASES["toy"]})
    signed = trained("rivers", "small", name="wet", private=KEY, tokens=4096)
    assert signed.body.adapter is None
    assert (signed.body.dtype, signed.body.provenance["tokens"]) == ("float16", 4096)
    assert signed.body.weights_sha256 != store.resolve("small").weights_sha256


def test_progress_is_told() -> None:
    told: list[str] = []
    trained(
        "rivers",
        "small",
        name="wet",
        private=KEY,
        tokens=1024,
        progress=lambda what, done, total: told.append(what),
    )
    assert told


def test_an_unknown_base_is_refused() -> None:
    with pytest.raises(UnknownName, match="There is no model 'nothing'"):
        trained("rivers", "nothing", name="wet", private=KEY)
