"""Coders give back what they took, entropy is what it is by hand, and a changed byte is counted right."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sharedllm.bets.packing import CODERS, Matrix, drawn, entropy_bits, flipped, rounded_blocks
from sharedllm.errors import MissingSource
from sharedllm.model import Config, Transformer, train_tokenizer
from sharedllm.store import ternary

CONFIG = Config(vocab_size=300, width=32, layers=2, heads=2, kv_heads=2, head_width=16, hidden=64)
MANY = [drawn(9_999, (0.3, 0.4, 0.3), 0), drawn(4, (0.5, 0.5, 0.0), 1), drawn(2_000, (0.0, 0.1, 0.9), 2)]


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(CONFIG)


@pytest.fixture
def path(tmp_path: Path, model: Transformer) -> Path:
    path = tmp_path / "small.ternary"
    with path.open("wb") as file:
        weights = ternary.rounded(model.state_dict())
        tokenizer = train_tokenizer(["the river"] * 4, 300)
        ternary.write(file, CONFIG, tokenizer, weights, licence="CC0-1.0", provenance={})
    return path


@pytest.mark.parametrize("name", CODERS)
def test_what_is_decoded_is_what_was_encoded(name: str) -> None:
    coder = CODERS[name]
    decoded = coder.decode(coder.encode(MANY), [len(matrix.packed) for matrix in MANY])
    assert np.array_equal(decoded, np.concatenate([matrix.packed for matrix in MANY]))


@pytest.mark.parametrize("name", CODERS)
def test_a_coder_comes_near_a_known_entropy(name: str) -> None:
    many = [drawn(500_000, (0.15, 0.7, 0.15), 3)]
    entropy = -0.7 * math.log2(0.7) - 0.3 * math.log2(0.15)
    assert entropy_bits(many) / 500_000 == pytest.approx(entropy, rel=0.005)
    assert 1 <= 8 * len(CODERS[name].encode(many)) / entropy_bits(many) < 1.1


def test_the_range_coder_comes_nearest() -> None:
    many = [drawn(500_000, (0.15, 0.7, 0.15), 3)]
    assert 8 * len(CODERS["range"].encode(many)) / entropy_bits(many) < 1.001


def test_trits_that_are_all_alike_have_no_entropy() -> None:
    assert entropy_bits([Matrix.of(torch.ones(11, dtype=torch.int8))]) == 0


def test_padding_has_no_entropy() -> None:
    assert entropy_bits([Matrix.of(torch.tensor([1, -1], dtype=torch.int8))]) == 2


def test_each_matrix_has_an_entropy_of_its_own() -> None:
    ones, zeros = (Matrix.of(torch.full((10,), number, dtype=torch.int8)) for number in (1, 0))
    assert entropy_bits([ones, zeros]) == 0


def test_every_hidden_weight_is_in_its_block(model: Transformer) -> None:
    blocks = rounded_blocks(model, "optimal")
    assert list(blocks) == ["0", "1"]
    hidden = sum(w.numel() for name, w in model.state_dict().items() if ternary.is_hidden(name))
    assert sum(matrix.n for block in blocks.values() for matrix in block) == hidden


@pytest.mark.parametrize("coded", [False, True])
def test_no_changed_byte_goes_unnoticed(path: Path, coded: bool) -> None:
    found = flipped(path, 12, 0, coded=coded)
    assert found.noticed + found.harmless == 12
    assert not found.unnoticed


def test_a_reader_that_checks_nothing_is_found_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ternary.Opened, "check", lambda opened: None)
    assert flipped(path, 12, 0, coded=False).unnoticed > 0


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "constriction", None)
    with pytest.raises(MissingSource, match="pip install constriction"):
        CODERS["range"].encode(MANY)
