"""Specialists by name and by id; those of the package are whole, small, and signed by its publisher."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharedllm import store
from sharedllm.errors import BadManifest, UnknownName
from sharedllm.store import Blobs, specialists
from sharedllm.store.specialists import Signed, directory

SHIPPED = ["code", "drama", "malayalam", "scripture", "technical", "verse"]


def test_six_specialists_ship() -> None:
    assert specialists.names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_specialist_is_signed_by_the_publisher(name: str) -> None:
    assert specialists.find(name).signer == specialists.PUBLISHER


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_adapter_is_in_the_store_once_it_is_found(name: str) -> None:
    adapter = specialists.find(name).body.adapter
    assert adapter is not None
    Blobs().verify(adapter.sha256)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_specialist_says_how_it_did_on_held_out_text(name: str) -> None:
    nats = specialists.find(name).body.provenance["test"]["nats_per_token"]
    assert nats["specialist"] < nats["base"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_adapter_changes_every_gain_of_its_base(name: str) -> None:
    assert len(specialists.deltas(specialists.find(name))) == 61


def test_a_published_specialist_is_found_by_name(signed: Signed) -> None:
    specialists.publish("mine", signed)
    assert specialists.find("mine") == signed


def test_and_by_id(signed: Signed) -> None:
    specialists.publish("mine", signed)
    assert specialists.find(signed.id) == signed


def test_a_shipped_one_is_found_by_id() -> None:
    code = specialists.find("code")
    assert specialists.find(code.id) == code


def test_an_unknown_name_is_told_what_there_is() -> None:
    with pytest.raises(UnknownName, match="there are: code, drama, malayalam"):
        specialists.find("cooking")


@pytest.mark.parametrize("name", ["", "../x", "Code", "a b", "x" * 65, "/etc/passwd"])
def test_a_name_that_can_not_be_used_is_refused(signed: Signed, name: str) -> None:
    with pytest.raises(UnknownName):
        specialists.publish(name, signed)


@pytest.mark.parametrize("name", ["", "../artefacts/toy", "..", "x" * 65])
def test_a_path_is_no_name(name: str) -> None:
    with pytest.raises(UnknownName):
        specialists.find(name)


def test_a_manifest_that_was_changed_on_disk_is_refused(signed: Signed) -> None:
    specialists.publish("mine", signed)
    path = store.home() / "specialists" / "mine.json"
    path.write_bytes(path.read_bytes().replace(b"MIT", b"BSD"))
    with pytest.raises(BadManifest, match=r"mine\.json is forged"):
        specialists.find("mine")


def test_an_exported_adapter_can_ship(
    adapted: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    specialists.publish("worn", adapted)
    specialists.export("worn", tmp_path / "artefacts")
    monkeypatch.setattr(directory, "_SHIPPED", tmp_path / "artefacts")
    monkeypatch.setenv("SHAREDLLM_HOME", str(home.parent / "elsewhere"))
    assert specialists.deltas(specialists.find("worn")).keys() == specialists.deltas(adapted).keys()


def test_a_whole_model_is_not_exported(signed: Signed, tmp_path: Path) -> None:
    specialists.publish("mine", signed)
    with pytest.raises(BadManifest, match="is a whole model"):
        specialists.export("mine", tmp_path)


def test_a_shipped_blob_that_was_damaged_is_refused(
    adapted: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    specialists.publish("worn", adapted)
    blob, _ = specialists.export("worn", tmp_path / "artefacts")
    blob.write_bytes(blob.read_bytes()[:-1])
    monkeypatch.setattr(directory, "_SHIPPED", tmp_path / "artefacts")
    monkeypatch.setenv("SHAREDLLM_HOME", str(home.parent / "elsewhere"))
    with pytest.raises(BadManifest, match="install sharedllm again"):
        specialists.find("worn")


def test_a_model_is_found_by_its_weights_under_any_name(signed: Signed) -> None:
    specialists.publish("mine", signed)
    assert store.with_weights(signed.body.weights_sha256) == signed.body


def test_an_adapter_counts_as_its_base(adapted: Signed, base: store.Manifest) -> None:
    specialists.publish("worn", adapted)
    found = store.with_weights(base.weights_sha256)
    assert found is not None
    assert found.adapter is None


def test_a_shipped_model_is_found_by_its_weights() -> None:
    weights = store.resolve("toy").weights_sha256
    found = store.with_weights(weights)
    assert found is not None
    assert found.name == "toy"


def test_weights_that_are_nowhere_are_not_found() -> None:
    assert store.with_weights("0" * 64) is None


def test_a_model_whose_blob_is_gone_is_not_found_by_its_weights(signed: Signed) -> None:
    specialists.publish("mine", signed)
    Blobs().path(signed.body.weights_sha256).unlink()
    assert store.with_weights(signed.body.weights_sha256) is None


def test_a_damaged_manifest_hides_no_other_model(signed: Signed) -> None:
    (store.home() / "specialists").mkdir(exist_ok=True)
    (store.home() / "specialists" / "a-damaged-one.json").write_bytes(b"{}")
    specialists.publish("whole", signed)
    assert store.with_weights(signed.body.weights_sha256) == signed.body
