"""The command line lists what is missing instead of failing on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sharedllm.cli.corpus import app
from sharedllm.errors import UnknownName


def test_listing_works_offline_and_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["list", "--root", str(tmp_path)])
    assert "apt-get install dict-devil" in result.stdout


def test_an_unknown_name_is_an_error_with_the_known_ones() -> None:
    result = CliRunner().invoke(app, ["show", "homer"])
    assert isinstance(result.exception, UnknownName)


def test_showing_a_user_prints_each_document_with_its_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["show", "lingl"])
    assert "stdlib/turtle/01" in result.stdout
