"""From a folder of one author's files to an adapter in the library, through the command, on the toy base."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from sharedllm.adapters import applied, library
from sharedllm.cli.federation import adapter as commands
from sharedllm.corpus import user
from sharedllm.model import score
from sharedllm.store import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHAREDLLM_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def fitted(home, tmp_path_factory):
    folder = tmp_path_factory.mktemp("poems")
    for i, document in enumerate(user("milton").train[:14]):
        (folder / f"{i}.txt").write_text(document.text)
    return CliRunner().invoke(commands.app, ["fit", str(folder), "--base", "toy"])


def test_an_authors_files_help_and_the_adapter_is_kept(fitted):
    assert fitted.exit_code == 0, fitted.output
    assert "held-out documents" in fitted.stdout
    assert "it helped." in fitted.stdout
    assert library.names() == ["me"]


@torch.no_grad()
def test_the_kept_adapter_lowers_the_loss_of_files_that_were_never_given(fitted):
    base = load("toy")
    tokens = [base.tokenizer.encode(document.text)[:256] for document in user("milton").train[14:34]]
    before = sum(float(score(base.model, each, 256).sum()) for each in tokens)
    with applied(base.model, library.load("me")):
        assert sum(float(score(base.model, each, 256).sum()) for each in tokens) < before


def test_its_int8_file_is_small_and_loses_little(fitted):
    said = library.about("me")
    assert said.precision == "int8"
    assert said.n_bytes < 4_000
    assert abs(said.about["rounding_nats"]["int8"]) < 0.01
