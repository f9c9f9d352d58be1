"""A flag wins over the environment, that over the file, and that over the default."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sharedllm.cli.main import app
from sharedllm.nodes.operations import BadSetting


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sharedllm", "generate"])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "sharedllm").mkdir()
    (tmp_path / "sharedllm" / "settings.toml").write_text('url = "http://[file"\n')


def asked_where(*arguments: str, options: tuple[str, ...] = ()) -> str:
    """Which address an unanswered question went to."""
    result = CliRunner().invoke(app, [*options, "generate", "x", *arguments])
    return str(result.exception).removeprefix("Nothing answers at ").split(". ")[0]


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAREDLLM_URL", "http://[environment")
    assert asked_where("--url", "http://[flag") == "http://[flag"


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAREDLLM_URL", "http://[environment")
    assert asked_where() == "http://[environment"


def test_the_file_wins_over_the_default() -> None:
    assert asked_where() == "http://[file"


def test_another_file_can_be_named(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('[generate]\nurl = "http://[other"\n')
    assert asked_where(options=("--settings", str(other))) == "http://[other"


def test_a_setting_that_the_command_lacks_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[generate]\nworkers = 3\n")
    result = CliRunner().invoke(app, ["--settings", str(other), "generate", "x"])
    assert isinstance(result.exception, BadSetting)
    assert "[generate] workers" in str(result.exception)


def test_a_file_is_checked_as_strictly_as_a_flag(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[generate]\nmax-tokens = 0\n")
    result = CliRunner().invoke(app, ["--settings", str(other), "generate", "x"])
    assert result.exit_code == 2
    assert "--max-tokens" in result.output
