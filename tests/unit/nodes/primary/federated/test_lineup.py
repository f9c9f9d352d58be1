"""Specialists that don't fit together are refused before anything starts, in a sentence that names both."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm import store
from sharedllm.errors import BadAdapter, BadMixture, UnknownName
from sharedllm.nodes.primary.federated import __main__ as looking
from sharedllm.nodes.primary.federated import lineup as module
from sharedllm.nodes.primary.federated.lineup import lineup
from sharedllm.store import Manifest, specialists
from sharedllm.store.manifest import AdapterBlob
from sharedllm.store.specialists import sign
from tests.unit.nodes.primary.threads import CONFIG

BASE = Manifest(
    "tiny",
    CONFIG,
    "aa" * 32,
    "bb" * 32,
    {"weights": 10, "tokenizer": 10},
    "float32",
    "Apache-2.0",
    {"made": "by hand"},
)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))
    monkeypatch.setattr(store, "resolve", lambda name: BASE)


def published(name: str, **changed: object) -> str:
    """A specialist of the base by that name; what is ``changed`` sets it apart."""
    body = dataclasses.replace(BASE, name=name, **changed)  # type: ignore[arg-type]
    specialists.publish(name, sign(body, Ed25519PrivateKey.from_private_bytes(bytes(32))))
    return name


def adapter(method: str = "norm") -> AdapterBlob:
    """An adapter whose bytes are in the store."""
    sha256 = store.Blobs().put_bytes(b"gains of " + method.encode())
    return AdapterBlob(method, sha256, 1)


def test_adapters_of_the_base_and_the_base_itself_fit_together() -> None:
    published("code", adapter=adapter())
    found = lineup("tiny", ["code", "tiny"])
    assert found.base is BASE
    code = found.specialists["code"]
    assert code is not None
    assert code.body.name == "code"
    assert found.specialists["tiny"] is None


def test_another_tokenizer_is_refused_naming_both() -> None:
    published("foreign", tokenizer_sha256="cc" * 32, adapter=adapter())
    with pytest.raises(BadMixture, match=r"foreign has the tokenizer c{12}….*tiny has a{12}…"):
        lineup("tiny", ["foreign"])


def test_another_vocabulary_is_refused() -> None:
    published("wider", config=dataclasses.replace(CONFIG, vocab_size=400), adapter=adapter())
    with pytest.raises(BadMixture, match="400 tokens"):
        lineup("tiny", ["wider"])


def test_a_lora_specialist_is_refused() -> None:
    published("low", adapter=adapter("lora"))
    with pytest.raises(BadAdapter, match="low is a lora adapter; a primary serves norm adapters and full"):
        lineup("tiny", ["low"])


def test_a_missing_specialist_is_refused_with_the_ways_to_get_one() -> None:
    with pytest.raises(UnknownName, match=r"specialist train.*specialist fetch"):
        lineup("tiny", ["nobody"])


@pytest.mark.parametrize(
    "changed", [{"weights_sha256": "dd" * 32}, {"adapter": AdapterBlob("norm", "ee" * 32, 1)}]
)
def test_a_specialist_without_its_weights_is_refused_with_the_way_to_fetch_them(
    changed: dict[str, object],
) -> None:
    published("empty", **changed)
    with pytest.raises(UnknownName, match=r"specialist fetch empty"):
        lineup("tiny", ["empty"])


@pytest.mark.parametrize("names", [["code", "code"], ["mixture"], [f"n{i}" for i in range(17)]])
def test_names_that_can_not_be_told_apart_or_are_too_many_are_refused(names: list[str]) -> None:
    with pytest.raises(BadMixture, match="each once"):
        lineup("tiny", names)


def test_looking_ends_with_a_sentence_and_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert looking.main(["tiny", "nobody"]) == 1
    assert "no specialist 'nobody'" in capsys.readouterr().err
    assert looking.main(["tiny"]) == 0
    assert module.lineup("tiny", ()).specialists == {}
