"""A ternary file is a model like any other: by path, by name, whole, in spans, and by its hash."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sharedllm import store
from sharedllm.errors import BadModelFile, UnknownName
from sharedllm.model import Tokenizer, Transformer
from sharedllm.store import ternary
from tests.unit.store.ternary.conftest import written


@pytest.fixture
def path(tmp_path: Path, model: Transformer, tokenizer: Tokenizer) -> Path:
    return written(tmp_path / "small.ternary", model, tokenizer)


def test_a_path_becomes_a_live_model(path: Path) -> None:
    loaded, opened = store.load(path), ternary.read(path)
    assert (loaded.manifest.name, loaded.manifest.dtype) == ("small", "ternary")
    assert (loaded.manifest.licence, loaded.manifest.provenance) == ("CC0-1.0", {"seed": 0})
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(weight, opened.restored(name)), name


def test_the_file_itself_is_the_blob(path: Path) -> None:
    manifest = store.resolve(path)
    assert manifest.weights_sha256 == store.sha256_of(path)
    assert manifest.sizes["weights"] == path.stat().st_size


def test_a_model_from_a_file_is_found_by_its_hash(path: Path) -> None:
    manifest = store.resolve(path)
    assert store.with_weights(manifest.weights_sha256) == manifest


def test_a_span_and_both_ends_are_those_of_the_whole(path: Path) -> None:
    loaded = store.load(path)
    span, ends = store.opened_span(loaded.manifest, 1, 2), store.opened_ends(loaded.manifest)
    whole = loaded.model.state_dict()
    for name, weight in {**span.state_dict(), **ends}.items():
        assert torch.equal(weight, whole[name]), name


def test_a_span_needs_no_other_layer_to_be_whole(path: Path) -> None:
    manifest = store.resolve(path)
    _damage(manifest, "blocks.0.attention.q.weight.trits")
    store.opened_span(manifest, 1, 2)
    with pytest.raises(BadModelFile, match=r"blocks\.0\.attention\.q\.weight\.trits of .* is damaged"):
        store.opened_span(manifest, 0, 1)


def test_ends_that_are_damaged_are_noticed(path: Path) -> None:
    manifest = store.resolve(path)
    _damage(manifest, "embed.weight.steps")
    with pytest.raises(BadModelFile, match=r"embed\.weight\.steps of .* is damaged"):
        store.opened_ends(manifest)


def test_a_file_with_a_flipped_bit_is_not_taken_in(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadModelFile, match="is damaged"):
        store.resolve(path)
    assert not list((store.home() / "converted").glob("*.json"))


def test_a_file_of_another_configuration_is_not_taken_in(
    path: Path, mixture: Transformer, model: Transformer, tokenizer: Tokenizer
) -> None:
    with path.open("wb") as file:
        weights = ternary.rounded(model.state_dict())
        ternary.write(file, mixture.config, tokenizer, weights, licence="", provenance={})
    with pytest.raises(BadModelFile, match="does not hold the tensors of its configuration"):
        store.resolve(path)


def test_a_model_that_is_ternary_in_training_is_the_same_at_rest(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    trained = {
        name: ternary.restored(*ternary.ternarise(weight, scale="median"))
        if ternary.is_hidden(name)
        else weight
        for name, weight in model.state_dict().items()
    }
    manifest = store.keep_ternary(
        "mine",
        model.config,
        tokenizer,
        ternary.exactly(trained),
        table="fp32",
        licence="CC0-1.0",
        provenance={},
    )
    store.enter(manifest)
    loaded = store.load("mine").model.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in trained.items())


def test_a_name_that_a_package_has_is_not_given_to_another_model(path: Path) -> None:
    import dataclasses

    with pytest.raises(UnknownName, match="can't name a saved model"):
        store.enter(dataclasses.replace(store.resolve(path), name="smollm2-135m"))


def test_a_ternary_model_ships_as_any_other(path: Path, tmp_path: Path) -> None:
    manifest = store.enter(store.resolve(path))
    files = store.export(manifest.name, tmp_path / "shipped")
    assert sorted(file.name for file in files) == ["small.json", "small.safetensors", "small.tokenizer.json"]
    assert files[0].read_bytes() == path.read_bytes()


def test_verify_reads_every_byte(path: Path) -> None:
    manifest = store.enter(store.resolve(path))
    assert store.verify("small") == manifest
    _damage(manifest, "tokenizer")
    with pytest.raises(BadModelFile, match="is damaged"):
        store.verify("small")


def _damage(manifest: store.Manifest, tensor: str) -> None:
    from sharedllm.store import safetensors

    blob = store.Blobs().path(manifest.weights_sha256)
    data = bytearray(blob.read_bytes())
    data[safetensors.read_header(blob)[tensor].start] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(data)
