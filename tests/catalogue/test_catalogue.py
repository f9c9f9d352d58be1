"""The catalogue of this checkout: bets read, notebooks keep the rules, files fit their schemas."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from sharedllm.bets import Catalogue, load_bet
from sharedllm.bets.check import check
from sharedllm.bets.ledger.history import is_shallow
from sharedllm.bets.provenance import head
from sharedllm.bets.runner import check_notebook

CATALOGUE = Catalogue(Path(__file__).parents[2] / "catalogue")
SCHEMAS = sorted((CATALOGUE.root / "schema").glob("*.json"))


@pytest.mark.parametrize("folder", CATALOGUE.folders(), ids=lambda folder: folder.name)
def test_a_bet_reads_and_its_notebook_keeps_the_rules(folder: Path) -> None:
    check_notebook(load_bet(folder))


@pytest.mark.skipif(
    head(CATALOGUE.repository) is None or is_shallow(CATALOGUE.repository), reason="needs the history of git"
)
def test_the_catalogue_is_sound() -> None:
    assert check(CATALOGUE) == []


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_a_schema_is_one(path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


def test_every_result_fits_the_schema() -> None:
    validator = jsonschema.Draft202012Validator(
        json.loads((CATALOGUE.root / "schema/result-1.json").read_text())
    )
    for path in CATALOGUE.root.glob("*/*/results/*.json"):
        validator.validate(json.loads(path.read_text()))


def test_every_ledger_line_fits_the_schema() -> None:
    validator = jsonschema.Draft202012Validator(
        json.loads((CATALOGUE.root / "schema/ledger-1.json").read_text())
    )
    lines = CATALOGUE.ledger.read_text().splitlines() if CATALOGUE.ledger.exists() else []
    for line in lines:
        validator.validate(json.loads(line))
