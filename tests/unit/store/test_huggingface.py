"""Folders that transformers saves load into the same model; what we can not honour is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from sharedllm import store
from sharedllm.errors import BadModelFile, DownloadFailed
from sharedllm.model import Tokenizer
from tests.unit.store.conftest import make_reference

Folder = Callable[..., Path]
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Tokenizer) -> Folder:
    """Save a reference model and its tokenizer as transformers does."""

    def save(reference: transformers.LlamaForCausalLM, **how: Any) -> Path:
        path = tmp_path / "saved"
        reference.save_pretrained(path, **how)
        json_str = json.loads(tokenizer.to_bytes())["tokenizer"]
        (path / "tokenizer.json").write_text(json_str)
        settings = {"eos_token": {"content": "<|endoftext|>"}, "chat_template": TEMPLATE}
        (path / "tokenizer_config.json").write_text(json.dumps(settings))
        return path

    return save


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_same(folder: Path, reference: transformers.LlamaForCausalLM) -> None:
    tokens_BT = torch.arange(40)[None]
    with torch.no_grad():
        ours, theirs = store.load(folder).model(tokens_BT), reference.float()(tokens_BT).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False},
        {"num_key_value_heads": 4, "head_dim": 32},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}},
    ],
)
def test_a_saved_model_computes_what_it_did(folder: Folder, changes: dict[str, Any]) -> None:
    reference = make_reference(**changes)
    assert_same(folder(reference), reference)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loads_as_fp32(folder: Folder, dtype: torch.dtype) -> None:
    reference = make_reference().to(dtype)
    path = folder(reference)
    assert {p.dtype for p in store.load(path).model.parameters()} == {torch.float32}
    assert_same(path, reference)


def test_shards_load_as_one_model(folder: Folder) -> None:
    reference = make_reference()
    path = folder(reference, max_shard_size="100KB")
    assert len(list(path.glob("*.safetensors"))) > 1
    assert_same(path, reference)


def test_the_tokenizer_brings_its_template_and_its_end(folder: Folder) -> None:
    tokenizer = store.load(folder(make_reference())).tokenizer
    assert tokenizer.eos == 0
    assert tokenizer.chat([{"role": "user", "content": "hi"}]) == "user: hi<|endoftext|>"


def test_a_template_in_its_own_file_wins(folder: Folder) -> None:
    path = folder(make_reference())
    (path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    tokenizer = store.load(path).tokenizer
    assert tokenizer.chat([{"role": "user", "content": "hi"}]) == "hi"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "gpt_neox"}, "of type 'gpt_neox'"),
        ({"attention_bias": True}, "uses biases"),
        ({"hidden_act": "gelu"}, "the activation 'gelu'"),
        ({"rope_parameters": None, "rope_scaling": {"rope_type": "llama3"}}, "scaled as 'llama3'"),
        ({"model_type": "mistral", "sliding_window": 4096}, "a sliding window"),
        ({"hidden_size": None}, "width is None; expected int"),
        ({"rms_norm_eps": "small"}, "lacks, or mistypes"),
        ({"num_hidden_layers": 3}, "missing blocks.2"),
        ({"intermediate_size": 97}, "has the shape"),
    ],
)
def test_a_configuration_that_we_can_not_honour_is_refused(
    folder: Folder, changes: dict[str, Any], sentence: str
) -> None:
    path = folder(make_reference())
    edit(path, **changes)
    with pytest.raises(BadModelFile, match=sentence):
        store.load(path)


def test_pickled_weights_are_refused_because_they_run_code(folder: Folder) -> None:
    path = folder(make_reference())
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(BadModelFile, match="unpickling runs code"):
        store.load(path)


def test_an_index_can_not_reach_outside_its_folder(folder: Folder) -> None:
    path = folder(make_reference())
    index = {"weight_map": {"model.norm.weight": "../../secret.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadModelFile, match="outside its own folder"):
        store.load(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_file_that_is_missing_or_broken_is_named(folder: Folder, name: str, content: str | None) -> None:
    path = folder(make_reference())
    (path / name).unlink()
    if content is not None:
        (path / name).write_text(content)
    with pytest.raises(BadModelFile, match=name):
        store.load(path)


def test_a_truncated_shard_is_named(folder: Folder) -> None:
    path = folder(make_reference()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadModelFile, match=r"model\.safetensors is not a whole safetensors file"):
        store.load(path.parent)


def test_a_repository_without_its_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadFailed, match="pip install huggingface_hub"):
        store.load("somebody/something")


def test_a_repository_that_can_not_be_reached_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*args: object, **kwargs: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(DownloadFailed, match="no route to host"):
        store.load("somebody/something")


def test_a_repository_loads_as_the_folder_it_was_downloaded_to(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    path = folder(make_reference())
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(path))
    assert store.load("somebody/something").manifest.weights_sha256 == store.resolve(path).weights_sha256
