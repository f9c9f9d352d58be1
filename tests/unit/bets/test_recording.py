"""What a notebook reports, and what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharedllm.bets import Series, checkpoint, progress, record
from sharedllm.bets.runner.recording import SCOPE
from sharedllm.errors import BadBet

SERIES: dict[str, Any] = {
    "name": "gain",
    "kind": "bar",
    "title": "Gain",
    "takeaway": "Every user gains.",
    "alt": "Three bars above zero.",
    "x": ["a", "b", "c"],
    "y": [1, 2, None],
    "x_label": "user",
    "y_label": "gain (nats)",
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path))


def test_a_record_is_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"a_nats": np.float32(0.5), "b": np.array([1, 2]), "c": None, "d": {"x": True}}
    record(metrics, per_seed={"a_nats": [0.4, 0.6]}, series=[SERIES, Series(**SERIES)])
    printed = capsys.readouterr().out
    assert "a_nats" in printed
    assert "not measured" in printed


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ({"a": float("nan")}, "metrics.a is nan; record a finite number, or None"),
        ({"a": [1, float("inf")]}, r"metrics.a\[1\] is inf"),
        ({"a": "good"}, "is the text 'good'; a record holds numbers"),
        ({"a": {"b": ["x"]}}, "is the text 'x'"),
        ({"a": object()}, "is a object"),
        ({"a": {1: 2}}, "has the key 1; keys are text"),
        ({"a b": 1}, "'a b' can't name a metric"),
        ({"_a": 1}, "'_a' can't name a metric"),
        ({"a": 2**70}, "more than 64 bits"),
        ({"a": list(range(100_000))}, "one holds 120,000. Record summaries"),
    ],
)
def test_what_is_no_plain_number_is_refused(metrics: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadBet, match=sentence):
        record(metrics)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"takeaway": " "}, "needs takeaway"),
        ({"alt": ""}, "needs alt"),
        ({"y_label": ""}, "needs y_label"),
        ({"kind": "pie"}, "has the kind 'pie'; known: line, bar"),
        ({"y": [1, 2]}, "y must have one value for each of the 3"),
        ({"kind": "interval"}, "needs low and high"),
        ({"y": {"p": [1, 2, 3]}, "low": [1, 2, 3]}, "low must have the same labels"),
        ({"colour": "red"}, "unexpected keyword argument 'colour'"),
    ],
)
def test_a_figure_that_does_not_say_what_it_shows_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadBet, match=sentence):
        record({"a": 1}, series=[{**SERIES, **change}])


def test_a_series_without_alt_text_does_not_exist() -> None:
    with pytest.raises(BadBet, match="'alt'"):
        record({"a": 1}, series=[{key: value for key, value in SERIES.items() if key != "alt"}])


def test_a_checkpoint_is_computed_once() -> None:
    calls: list[int] = []

    def compute() -> Any:
        calls.append(1)
        return {"loss": (1.5, np.float64(2.0)), "name": "x"}

    values = [checkpoint("cell", {"seed": 1}, compute) for _ in range(3)]
    assert values == [{"loss": [1.5, 2.0], "name": "x"}] * 3
    assert len(calls) == 1


def test_another_key_name_or_code_is_another_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def compute() -> int:
        calls.append(1)
        return len(calls)

    first = checkpoint("cell", {"seed": 1}, compute)
    second = checkpoint("cell", {"seed": 2}, compute)
    third = checkpoint("other", {"seed": 1}, compute)
    monkeypatch.setenv(SCOPE, "changed code")
    assert [first, second, third, checkpoint("cell", {"seed": 1}, compute)] == [1, 2, 3, 4]


def test_a_checkpoint_that_fails_leaves_nothing_behind() -> None:
    def fail() -> float:
        raise RuntimeError("stopped half-way")

    with pytest.raises(RuntimeError):
        checkpoint("cell", {}, fail)
    assert checkpoint("cell", {}, lambda: 1) == 1


def test_a_checkpoint_holds_no_nan() -> None:
    with pytest.raises(BadBet, match="cell is nan"):
        checkpoint("cell", {}, lambda: float("nan"))


def test_progress_yields_everything_and_says_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(3), "seeds")) == [0, 1, 2]
    assert "seeds: 3 of 3" in capsys.readouterr().out


def test_progress_of_an_endless_source_needs_no_total(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(iter("ab"), "letters")) == ["a", "b"]
    assert "letters: 1," in capsys.readouterr().out
