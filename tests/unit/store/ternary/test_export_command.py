"""``sharedllm model export``: a file, what its bytes went into, and what the model lost."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sharedllm import corpus, store
from sharedllm.cli.main import main
from sharedllm.cli.model import app
from sharedllm.corpus import Document
from sharedllm.model import Tokenizer, Transformer
from sharedllm.store import ternary


@pytest.fixture(autouse=True)
def _saved(model: Transformer, tokenizer: Tokenizer) -> None:
    store.save("mine", model, tokenizer, licence="CC0-1.0", provenance={"seed": 7})


@dataclasses.dataclass(frozen=True)
class Domain:
    test: tuple[Document, ...]


@pytest.fixture
def _texts(monkeypatch: pytest.MonkeyPatch) -> None:
    def document(text: str) -> Document:
        return Document(text, text, text, "made up", len(text), hashlib.sha256(text.encode()).hexdigest())

    some = tuple(map(document, ["the cat sat", "on the mat", "hello world", "return 12345"]))
    monkeypatch.setattr(corpus, "domain", lambda name: Domain(some))


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["export", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result


def table(text: str) -> dict[str, list[str]]:
    return {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}


def test_the_file_is_a_model(tmp_path: Path) -> None:
    out = tmp_path / "small.ternary"
    run("mine", "--format", "ternary", "--out", str(out), "--documents", "0")
    manifest = store.load(out).manifest
    assert (manifest.dtype, manifest.licence) == ("ternary", "CC0-1.0")
    assert manifest.provenance == {
        "base": "mine",
        "base_sha256": store.resolve("mine").weights_sha256,
        "scheme": "rounded",
    }


def test_the_file_is_named_after_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("mine", "--documents", "0")
    assert store.resolve(tmp_path / "mine.ternary").name == "mine"


def test_the_parts_are_told_in_bytes_and_bits(tmp_path: Path) -> None:
    out = tmp_path / "x"
    said = table(run("mine", "--out", str(out), "--documents", "0").stdout)
    assert said["file"][0] == f"{out.stat().st_size:,}"
    assert float(said["trits"][-1]) == pytest.approx(1.6, abs=0.002)
    assert said.keys() >= {"scales", "embedding", "gains", "tokenizer", "header"}


@pytest.mark.usefixtures("_texts")
def test_the_loss_is_told_before_and_after(tmp_path: Path) -> None:
    said = table(run("mine", "--out", str(tmp_path / "x"), "--documents", "2").stdout)
    assert said["bits"] == ["per", "byte", "before", "after"]
    before, after = map(float, said["mean"])
    assert 0 < before != after
    assert said.keys() >= set(corpus.BASE_DOMAINS)


def test_rounding_says_that_it_destroys(tmp_path: Path) -> None:
    said = run("mine", "--out", str(tmp_path / "x"), "--documents", "0").stderr
    assert "mine was not trained with ternary weights, and rounding alone destroys" in said
    assert "--scheme calibrated" in said


@pytest.mark.usefixtures("_texts")
def test_a_model_that_is_ternary_already_is_copied(tmp_path: Path) -> None:
    first, second = tmp_path / "first.ternary", tmp_path / "second.ternary"
    run("mine", "--out", str(first), "--documents", "0")
    result = run(str(first), "--out", str(second), "--documents", "1")
    assert second.read_bytes() == first.read_bytes()
    assert "is ternary already" in result.stderr
    assert table(result.stdout)["bits"] == ["per", "byte", "after"]


def test_the_embedding_can_be_smaller(tmp_path: Path) -> None:
    sizes = {}
    for kind in ("int8", "int4"):
        run("mine", "--out", str(tmp_path / kind), "--table", kind, "--documents", "0")
        parts = ternary.inventory(ternary.read(tmp_path / kind))
        sizes[kind] = next(part.n_bytes for part in parts if part.name == "embedding")
    assert sizes["int4"] < 0.6 * sizes["int8"]


def test_the_coded_form_lies_beside_the_file(tmp_path: Path) -> None:
    out = tmp_path / "x.ternary"
    said = run("mine", "--out", str(out), "--coding", "zstd", "--documents", "0").stdout
    coded = tmp_path / "x.ternary.zst"
    assert f"{coded}: {coded.stat().st_size:,} bytes" in said
    assert store.resolve(coded).weights_sha256 == store.sha256_of(out)


def test_an_unknown_scheme_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # as ``main`` would, for good
    monkeypatch.setattr(sys, "argv", ["sharedllm", "model", "export", "mine", "--scheme", "magic"])
    with pytest.raises(SystemExit):
        main()
    said = capfd.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "There is no scheme 'magic'; there are rounded," in said.err
