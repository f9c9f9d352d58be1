"""``sharedllm train diloco`` refuses in sentences, trains, tells what happened, and lets others join."""

from __future__ import annotations

import dataclasses
import socket
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sharedllm.cli import together
from sharedllm.cli.train import app
from sharedllm.errors import BadAggregate, BadRecipe, SharedLLMError
from sharedllm.model import train_tokenizer
from sharedllm.training import Prepared, Recipe
from sharedllm.training.outer.processes import Crew, host, listen
from tests.unit.training.conftest import TINY, counted, tiny_model
from tests.unit.training.outer.processes.conftest import tiny_settings


def refusal(*arguments: str) -> SharedLLMError:
    error = CliRunner().invoke(app, ["diloco", *arguments]).exception
    assert isinstance(error, SharedLLMError)
    return error


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workers", "2", "--byzantine", "2"], "leave at least one that is honest"),
        (["--rounds", "2", "--minutes", "1"], "give one of them"),
        (["--attack", "shout", "--byzantine", "1"], "no attack 'shout'"),
        (["--churn", "kill:1"], "is no churn"),
        (["--address", "0.0.0.0"], "every address"),
        (["--join", "somewhere"], "give HOST:PORT"),
        (["--join", "127.0.0.1:99999"], "give HOST:PORT"),
    ],
)
def test_what_can_not_be_done_is_refused_before_anything_is_prepared(
    arguments: list[str], sentence: str
) -> None:
    error = refusal(*arguments)
    assert isinstance(error, BadRecipe)
    assert sentence in str(error)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--workers", "4", "--byzantine", "2"],
        ["--workers", "2", "--byzantine", "1"],
        ["--workers", "4", "--byzantine", "1", "--rule", "krum"],
        ["--rule", "average"],
    ],
)
def test_a_rule_that_can_not_bear_the_liars_is_refused(arguments: list[str]) -> None:
    assert isinstance(refusal(*arguments), BadAggregate)


def test_a_taken_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "can't listen" in str(refusal("--port", str(taken.getsockname()[1])))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A model of a few thousand weights in place of the toy base."""

    def prepare(base: str, seed: int) -> Prepared:
        return Prepared(tiny_model(seed), train_tokenizer(["up and down"], 300), counted(), {})

    def recipe(base: str, rounds: int, inner_steps: int) -> Recipe:
        return dataclasses.replace(TINY, tokens=TINY.tokens_per_step * rounds * inner_steps)

    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(together, "prepare_joint", prepare)
    monkeypatch.setattr(together, "joint_recipe", recipe)
    monkeypatch.setattr(together, "domain_losses", lambda *model, window: {"up": 1.5, "down": 2.5})


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_a_training_ends_with_what_was_learned_and_who_sent_what() -> None:
    asked = ["--workers", "3", "--byzantine", "1", "--rounds", "2", "--inner-steps", "2", "--no-compare"]
    told = CliRunner().invoke(app, ["diloco", *asked])
    assert told.exception is None
    for expected in ("2.000", "lied: scale", "rounds 1 to 2: workers 0, 1, 2", "the same for all"):
        assert expected in told.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_another_command_joins_a_training_that_runs(tmp_path: Path) -> None:
    settings = tiny_settings(base="toy", rounds=400)
    store = host(settings, listen("127.0.0.1", 0))
    began, ends = threading.Event(), []

    def run() -> None:
        with Crew(settings, counted(), tmp_path, store=store, numbers=range(2)) as crew:
            for event in crew.events():
                if event["event"] == "round":
                    began.set()
                if event["event"] == "done":
                    ends.append(event["sha256"])

    training = threading.Thread(target=run)
    training.start()
    assert began.wait(120)
    told = CliRunner().invoke(app, ["diloco", "--join", f"127.0.0.1:{store.port}"])
    training.join()
    assert told.exception is None
    assert f"worker 2 finished round 400; state {ends[0][:12]}" in told.stdout
