"""``sharedllm model``: results on stdout, one sentence and exit code 1 for what can't be done."""

from __future__ import annotations

import sys

import pytest
import torch
from typer.testing import CliRunner, Result

from sharedllm import store
from sharedllm.cli.main import main
from sharedllm.cli.model import app
from sharedllm.model import Tokenizer, Transformer


@pytest.fixture(autouse=True)
def _saved(model: Transformer, tokenizer: Tokenizer) -> None:
    with torch.no_grad():
        model.embed.weight.mul_(20)
    store.save("mine", model, tokenizer, licence="CC0-1.0", provenance={"seed": 7})


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result


def test_list_says_which_models_are_here() -> None:
    lines = {line.split()[0]: line for line in run("list").stdout.splitlines()}
    assert "saved in the store" in lines["mine"]
    assert "not here" in lines["smollm2-135m"]


def test_show_tells_shape_size_licence_and_provenance() -> None:
    shown = run("show", "mine").stdout
    for fact in ("CC0-1.0", "parameters", "config.layers          2", "provenance.seed        7", "sha256"):
        assert fact in shown


def test_fetch_says_where_the_model_is() -> None:
    assert str(store.home()) in run("fetch", "mine").stdout


def test_verify_says_that_a_model_is_whole() -> None:
    assert "mine is whole" in run("verify", "mine").stdout


def test_generate_repeats_itself_with_the_same_seed() -> None:
    how = ("generate", "mine", "the cat", "--max-tokens", "8", "--temperature", "1", "--seed")
    assert run(*how, "3").stdout == run(*how, "3").stdout != run(*how, "4").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["generate", "mine", ""], "is empty"),
        (["generate", "mine", "the cat", "--top-p", "2"], "top_p is 2.0; expected"),
        (["generate", "mine", "the cat", "--chat"], "no chat template"),
        (["show", "nobody"], "There is no model 'nobody'"),
    ],
)
def test_what_can_not_be_done_is_one_sentence(
    arguments: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # as ``main`` would, for good
    monkeypatch.setattr(sys, "argv", ["sharedllm", "model", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capfd.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (1, "", 1)
    assert sentence in said.err


def test_clean_says_what_it_removed() -> None:
    blobs = store.Blobs().root / "00"
    blobs.mkdir()
    (blobs / ("0" * 64)).write_bytes(b"forgotten")
    assert "1 files of 9 bytes were removed." in run("clean").stdout
    assert not (blobs / ("0" * 64)).exists()


def test_clean_can_only_say_so() -> None:
    blobs = store.Blobs().root / "00"
    blobs.mkdir()
    (blobs / ("0" * 64)).write_bytes(b"forgotten")
    assert "1 files of 9 bytes would be removed." in run("clean", "--dry-run").stdout
    assert (blobs / ("0" * 64)).exists()
