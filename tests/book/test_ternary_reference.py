"""The page on ternary files names what a file has: every key of its metadata, and every form of a weight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sharedllm.model import Config, Transformer, train_tokenizer
from sharedllm.store import safetensors, ternary
from tests.book.test_reference import PAGES, rows

CONFIG = Config(vocab_size=300, width=32, layers=1, heads=2, kv_heads=2, head_width=16, hidden=32, experts=2)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    torch.manual_seed(0)
    model, tokenizer = Transformer(CONFIG), train_tokenizer(["the river"] * 4, 300)
    made = []
    tables: tuple[ternary.Table, ...] = ("int8", "int4")
    for table in tables:
        path = tmp_path_factory.mktemp("files") / table
        weights = ternary.rounded(model.state_dict())
        with path.open("wb") as file:
            ternary.write(file, CONFIG, tokenizer, weights, table=table, licence="", provenance={})
        made.append(path)
    return made


def test_the_page_has_every_key_of_the_metadata(paths: list[Path]) -> None:
    assert rows("ternary", "The metadata").keys() == safetensors.read_metadata(paths[0]).keys()


def test_the_page_has_every_form_of_a_weight(paths: list[Path]) -> None:
    forms = {
        form["form"]
        for path in paths
        for form in json.loads(safetensors.read_metadata(path)["weights"]).values()
    }
    assert rows("ternary", "Forms of a weight").keys() == forms


def test_the_page_names_the_format() -> None:
    assert ternary.SCHEMA in (PAGES / "ternary.md").read_text(encoding="utf-8")
