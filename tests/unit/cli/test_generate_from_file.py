"""``sharedllm generate --model FILE`` needs no primary, and asks the one that serves the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sharedllm.cli import model as model_commands
from sharedllm.cli.talk import api as talk_api
from sharedllm.cli.talk import generate
from sharedllm.cli.talk.api import ApiFailed


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was computed in this process."""
    calls: list[Any] = []

    def speak(name: str, prompt: str, sampling: Any, *, chat: bool) -> None:
        calls.append((name, prompt, sampling.max_tokens, sampling.stop, chat))

    monkeypatch.setattr(model_commands, "speak", speak)
    return calls


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "small.ternary"
    file.write_bytes(b"a model")
    return str(file)


@pytest.fixture
def served(api: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """This machine's primary."""
    monkeypatch.setattr(talk_api, "read_note", lambda state: {"page": api.url})
    return api


@pytest.fixture
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk_api, "read_note", lambda state: {"page": "http://127.0.0.1:1"})


@pytest.mark.usefixtures("_nobody")
def test_without_a_primary_it_is_computed_here(path: str, spoken: list[Any]) -> None:
    said = CliRunner().invoke(
        generate.app, ["Hi", "--model", path, "--chat", "--max-tokens", "3", "--stop", "x"]
    )
    assert spoken == [(path, "Hi", 3, ("x",), True)]
    assert "is computed in this process" in said.stderr


def test_a_primary_that_serves_something_else_is_not_asked(path: str, served: Any, spoken: list[Any]) -> None:
    CliRunner().invoke(generate.app, ["Hi", "--model", path])
    assert spoken
    assert not served.asked


def test_a_primary_that_serves_the_file_is_asked(
    path: str, served: Any, spoken: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk_api.Api, "models", lambda api: [path])
    assert CliRunner().invoke(generate.app, ["Hi", "--model", path]).stdout == "Hello, you\n"
    assert served.asked[0]["model"] == path
    assert not spoken


@pytest.mark.usefixtures("_nobody")
def test_a_receipt_needs_a_primary(path: str, spoken: list[Any], tmp_path: Path) -> None:
    result = CliRunner().invoke(
        generate.app, ["Hi", "--model", path, "--receipt", str(tmp_path / "answer.json")]
    )
    assert isinstance(result.exception, ApiFailed)
    assert "only a primary signs receipts" in str(result.exception)
    assert not spoken
