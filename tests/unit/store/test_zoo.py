"""Names become models: saved, shipped, converted once, verified; whatever is wrong is one sentence."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from sharedllm import store
from sharedllm.errors import BadModelFile, UnknownName
from sharedllm.model import Tokenizer, Transformer
from sharedllm.store import Blobs, Manifest, conversion, zoo
from tests.processes import Program
from tests.unit.store.conftest import CONFIG

Reference = transformers.LlamaForCausalLM
WriteGGUF = Callable[..., Path]


def save(name: str, model: Transformer, tokenizer: Tokenizer, dtype: torch.dtype = torch.float32) -> Manifest:
    return store.save(name, model, tokenizer, licence="Apache-2.0", provenance={"seed": 0}, dtype=dtype)


def files(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file() and path.parent.name != "locks"]


@pytest.mark.parametrize("changes", [{}, {"tied_head": False}, {"experts": 4}])
def test_a_saved_model_is_loaded_as_it_was(tokenizer: Tokenizer, changes: dict[str, int]) -> None:
    model = Transformer(dataclasses.replace(CONFIG, **changes))
    save("mine", model, tokenizer)
    loaded = store.load("mine")
    assert loaded.model.config == model.config
    assert loaded.tokenizer.sha256 == tokenizer.sha256
    torch.testing.assert_close(loaded.model.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_half_precision_at_rest_is_fp32_when_live(model: Transformer, tokenizer: Tokenizer) -> None:
    manifest = save("mine", model, tokenizer, torch.float16)
    loaded = store.load("mine").model
    assert manifest.dtype == "float16"
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(loaded.embed.weight, model.embed.weight.half().float(), rtol=0, atol=0)


def test_a_loaded_model_can_be_trained_without_touching_the_store(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    save("mine", model, tokenizer)
    loaded = store.load("mine").model
    optimizer = torch.optim.SGD(loaded.parameters(), lr=1.0)
    loaded(torch.arange(8)[None]).sum().backward()
    optimizer.step()
    store.verify("mine")


def test_the_same_weights_are_the_same_blob(model: Transformer, tokenizer: Tokenizer) -> None:
    assert save("one", model, tokenizer).weights_sha256 == save("two", model, tokenizer).weights_sha256


def test_a_name_can_be_saved_over(model: Transformer, tokenizer: Tokenizer) -> None:
    save("mine", model, tokenizer)
    with torch.no_grad():
        model.norm.weight.fill_(2.0)
    save("mine", model, tokenizer)
    assert store.load("mine").model.norm.weight[0] == 2.0


@pytest.mark.parametrize("name", ["", "../x", "Mine", "a b", "x" * 65, "smollm2-135m"])
def test_a_name_that_can_not_be_used_is_refused(model: Transformer, tokenizer: Tokenizer, name: str) -> None:
    with pytest.raises(UnknownName, match="can't name a saved model"):
        save(name, model, tokenizer)


def test_weights_that_are_no_numbers_are_not_saved(
    model: Transformer, tokenizer: Tokenizer, home: Path
) -> None:
    with torch.no_grad():
        model.blocks[1].attention.q.weight[0, 0] = torch.nan
    with pytest.raises(BadModelFile, match=r"blocks\.1\.attention\.q\.weight of mine holds NaN"):
        save("mine", model, tokenizer)
    assert files(home) == []


def test_weights_too_large_for_half_precision_are_not_saved(model: Transformer, tokenizer: Tokenizer) -> None:
    with torch.no_grad():
        model.norm.weight[0] = 70_000
    with pytest.raises(BadModelFile, match=r"norm.weight of mine holds NaN or infinity as torch.float16"):
        save("mine", model, tokenizer, torch.float16)


def test_an_unknown_name_lists_those_that_are_known() -> None:
    with pytest.raises(UnknownName, match="30m, smollm2-135m, toy"):
        store.load("gpt-9")


@pytest.mark.parametrize("name", ["toy", "30m"])
def test_a_recipe_that_was_not_trained_says_how(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "_ARTEFACTS", tmp_path)
    with pytest.raises(UnknownName, match=f"sharedllm train {name}"):
        store.load(name)


def test_an_exported_model_can_ship_with_the_package(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("toy", model, tokenizer, torch.float16)
    store.export("toy", tmp_path / "artefacts")
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(zoo, "_ARTEFACTS", tmp_path / "artefacts")
    assert {known.name: known.present for known in store.names()}["toy"]
    torch.testing.assert_close(store.load("toy").model.norm.weight, model.norm.weight)


def test_a_model_of_ones_own_goes_before_the_shipped_one(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "_ARTEFACTS", tmp_path / "artefacts")
    save("toy", model, tokenizer)
    store.export("toy", tmp_path / "artefacts")
    with torch.no_grad():
        model.norm.weight.fill_(2.0)
    save("toy", model, tokenizer)
    assert store.load("toy").model.norm.weight[0] == 2.0


def test_a_damaged_shipped_model_is_refused(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("toy", model, tokenizer)
    weights, *_ = store.export("toy", tmp_path / "artefacts")
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(zoo, "_ARTEFACTS", tmp_path / "artefacts")
    with pytest.raises(BadModelFile, match=r"toy.safetensors is missing or damaged"):
        store.load("toy")


def test_a_flipped_bit_is_found_and_named(model: Transformer, tokenizer: Tokenizer) -> None:
    manifest = save("mine", model, tokenizer)
    path = Blobs().path(manifest.weights_sha256)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadModelFile, match=f"Blob {manifest.weights_sha256} is damaged"):
        store.verify("mine")


def test_a_blob_cut_short_is_refused_at_loading(model: Transformer, tokenizer: Tokenizer) -> None:
    path = Blobs().path(save("mine", model, tokenizer).weights_sha256)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadModelFile, match="the blob of its weights"):
        store.load("mine")


def test_a_manifest_that_was_garbled_is_refused(model: Transformer, tokenizer: Tokenizer, home: Path) -> None:
    save("mine", model, tokenizer)
    path = home / "models" / "mine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"surprise": 1}))
    with pytest.raises(BadModelFile, match="not a model manifest"):
        store.load("mine")


def test_a_manifest_stays_small(model: Transformer, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="must have < 4096"):
        store.save("mine", model, tokenizer, licence="", provenance={"log": "x" * 4096})


def test_a_manifest_comes_back_from_its_bytes(model: Transformer, tokenizer: Tokenizer) -> None:
    manifest = save("mine", model, tokenizer)
    assert Manifest.from_bytes(manifest.to_bytes(), "here") == manifest


def test_a_tokenizer_larger_than_the_embedding_is_refused(tokenizer: Tokenizer) -> None:
    model = Transformer(dataclasses.replace(CONFIG, vocab_size=tokenizer.vocab_size - 1))
    with pytest.raises(BadModelFile, match="don't belong together"):
        save("mine", model, tokenizer)


def test_a_file_is_converted_once(
    write_gguf: WriteGGUF, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, told = write_gguf(reference), []
    first = store.load(path, progress=lambda *report: told.append(report)).manifest
    total = sum(weight.numel() for weight in reference.parameters()) * 4
    assert told[-1] == ("Converting model", total, total)
    monkeypatch.setattr(zoo, "keep", pytest.fail)
    assert store.load(path).manifest == first


def test_a_file_that_changed_is_converted_again(write_gguf: WriteGGUF, reference: Reference) -> None:
    first = store.resolve(write_gguf(reference))
    with torch.no_grad():
        reference.model.norm.weight.fill_(2.0)
    assert store.resolve(write_gguf(reference)).weights_sha256 != first.weights_sha256


def test_a_conversion_whose_blob_was_deleted_is_done_again(
    write_gguf: WriteGGUF, reference: Reference
) -> None:
    path = write_gguf(reference)
    manifest = store.resolve(path)
    Blobs().path(manifest.weights_sha256).unlink()
    assert store.load(path).manifest == manifest


def test_two_processes_may_load_the_same_file_at_once(write_gguf: WriteGGUF, reference: Reference) -> None:
    path = write_gguf(reference)
    code = f"from sharedllm import store; print(store.load({str(path)!r}).manifest.sha256)"
    both = [Program(code) for _ in range(2)]
    assert {program.wait()[1].strip() for program in both} == {store.resolve(path).sha256}


def test_a_full_disk_while_converting_leaves_nothing(
    write_gguf: WriteGGUF, reference: Reference, home: Path
) -> None:
    code = (
        "import resource, sys; from sharedllm import store; from sharedllm.cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        f"sys.argv = ['sharedllm', 'model', 'fetch', {str(write_gguf(reference))!r}]; main()"
    )
    ended, _, complained = Program(code).wait()
    assert (ended, complained.count("\n")) == (1, 1)
    assert "could not be written (File too large); nothing half-written was left" in complained
    assert files(home) == []


def test_opening_draws_no_random_numbers(model: Transformer, tokenizer: Tokenizer) -> None:
    save("mine", model, tokenizer)
    before = torch.get_rng_state()
    conversion.opened(store.resolve("mine"))
    assert torch.equal(torch.get_rng_state(), before)
