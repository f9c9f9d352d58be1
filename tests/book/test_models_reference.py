"""The page on models says of each base what its manifest says, and leaves out none that ships."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sharedllm import store
from sharedllm.store import Manifest
from tests.book.test_reference import rows

ARTEFACTS = Path(store.__file__).parent / "artefacts"
SHIPPED = sorted(path for path in ARTEFACTS.glob("*.json") if not path.name.endswith(".tokenizer.json"))
DOMAINS = ("code", "drama", "scripture", "verse")


def test_every_base_that_ships_has_a_row() -> None:
    assert set(rows("models", "Bases")) == {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_row_says_what_the_manifest_says(path: Path) -> None:
    manifest = Manifest.from_dict(json.loads(path.read_bytes()), str(path))
    losses = manifest.provenance["test_bits_per_byte"]
    _, tokens, n_bytes, *shown = rows("models", "Bases")[path.stem]
    assert (tokens, n_bytes) == (f"{manifest.provenance['tokens']:,}", f"{manifest.sizes['weights']:,}")
    assert shown == [f"{losses[domain]:.3f}" for domain in DOMAINS]
