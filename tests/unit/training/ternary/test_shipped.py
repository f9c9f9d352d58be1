"""The ternary toy that ships with the package: small, its recipe's, and the twin of the full one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharedllm import store
from sharedllm.training import TOY_TERNARY
from sharedllm.training.ternary import rows_not_ternary, twin_differences

ARTEFACTS = Path(store.__file__).parent / "artefacts"
MAX_ARTEFACT_BYTES = 1_500_000
MAX_LOST_BITS_PER_BYTE = 0.001


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.Loaded:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))
    return store.load("toy-ternary")


def test_it_is_small() -> None:
    files = list(ARTEFACTS.glob("toy-ternary.*"))
    assert 0 < sum(file.stat().st_size for file in files) <= MAX_ARTEFACT_BYTES


def test_it_is_what_the_recipe_says(shipped: store.Loaded) -> None:
    assert shipped.manifest.provenance["recipe"] == TOY_TERNARY.to_dict()


def test_it_comes_from_a_clean_commit(shipped: store.Loaded) -> None:
    commit = shipped.manifest.provenance["commit"]
    assert len(commit) == 40
    assert set(commit) <= set("0123456789abcdef")


def test_it_is_the_twin_of_the_full_one(shipped: store.Loaded) -> None:
    assert twin_differences(shipped.manifest, store.resolve("toy")) == []


def test_each_row_of_it_is_ternary(shipped: store.Loaded) -> None:
    assert rows_not_ternary(shipped.model) == 0


def test_its_embeddings_lost_nothing_by_eight_bits(shipped: store.Loaded) -> None:
    provenance = shipped.manifest.provenance
    for domain, loss in provenance["test_bits_per_byte"].items():
        assert loss - provenance["test_bits_per_byte_fp32_embeddings"][domain] <= MAX_LOST_BITS_PER_BYTE
