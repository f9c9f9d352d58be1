"""Formats hold whatever is thrown at them: expressions, ledgers, results, registrations."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sharedllm.bets.criteria import Unevaluable, must, parse, was
from sharedllm.bets.ledger.chain import GENESIS, Event, parse_lines
from sharedllm.bets.registration import parse_bet
from sharedllm.bets.result import parse_result
from sharedllm.bets.runner.recording import plain
from sharedllm.errors import BadBet, CatalogueTampered
from sharedllm.store import canonical_json

SCHEMAS = Path(__file__).parents[2] / "catalogue" / "schema"
METRICS: dict[str, float] = {"a": 1.5, "b": -2.0, "c": 3.0}

numbers = st.one_of(st.sampled_from(list(METRICS)), st.integers(-9, 9).map(str))
arithmetic = st.recursive(
    numbers, lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner), max_leaves=8
)
comparison = st.builds(
    "{} {} {}".format, arithmetic, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), arithmetic
)
rule_texts = st.recursive(
    comparison,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
        inner.map("(not {})".format),
    ),
    max_leaves=4,
)


@given(rule_texts)
def test_a_rule_means_what_python_means_by_it(text: str) -> None:
    assume(any(name in text for name in METRICS))
    try:
        rule = parse(text)
    except BadBet:
        assume(False)
    try:
        ours: bool | None = rule.holds(METRICS)
    except Unevaluable:
        ours = None
    if ours is not None:  # Python's and/or skip what they need not see, so it may know where we refuse
        assert ours == eval(text, {"__builtins__": {}}, dict(METRICS))
    assert must(rule, "nats")
    assert was(rule, "nats", METRICS)


@given(st.text(max_size=80))
def test_any_text_is_a_rule_or_a_sentence(text: str) -> None:
    with contextlib.suppress(BadBet):
        parse(text)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.floats(-1e6, 1e6))
def test_what_was_said_is_on_the_side_of_the_bound_where_the_number_is(value: float, bound: float) -> None:
    rule = parse(f"x <= {bound!r}")
    said = was(rule, "", {"x": value}).removeprefix("was ").replace("−", "-").replace(",", "")
    mantissa, _, power = said.partition("×10")
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    shown = float(f"{mantissa}e{power.translate(digits)}" if power else mantissa)
    assert (shown <= bound) == rule.holds({"x": value})


def chain(length: int) -> bytes:
    events, prev = b"", GENESIS
    for n in range(1, length + 1):
        event = Event(n, prev, "registered", f"b{n:03}", "a" * 64, "b" * 40, "2030-01-31T12:00:00Z")
        events, prev = events + event.line + b"\n", event.sha256
    return events


@given(st.integers(2, 6), st.data())
def test_no_byte_before_the_last_line_can_change_unseen(length: int, data: st.DataObject) -> None:
    ledger = chain(length)
    end = ledger.rstrip(b"\n").rindex(b"\n")
    place = data.draw(st.integers(0, end))
    value = data.draw(st.integers(0, 255).filter(lambda byte: byte != ledger[place]))
    changed = ledger[:place] + bytes([value]) + ledger[place + 1 :]
    with pytest.raises(CatalogueTampered, match="line"):
        parse_lines(changed, "LEDGER.jsonl")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_ledger_or_a_sentence(data: bytes) -> None:
    with contextlib.suppress(CatalogueTampered):
        parse_lines(data, "LEDGER.jsonl")


RULE = {
    "name": "r",
    "level": "strict",
    "rule": "x < 1",
    "unit": "",
    "must": "must be < 1",
    "was": "was 0",
    "observed": 0,
    "held": True,
    "per_seed": {},
}
RESULT: dict[str, Any] = {
    "schema": "sharedllm/result-1", "bet": "b001", "regime": "toy", "tier": "full", "fate": "canonical",
    "verdict": "FAIL", "registration_sha256": "a" * 64, "ledger_line": 1,
    "deviations": [{"parameter": "p", "registered": 1, "ran": 2}],
    "code": {"commit": "b" * 40, "dirty": False, "package_sha256": "a" * 64, "notebook_sha256": "a" * 64,
             "executed_sha256": None},
    "environment": {"lock_sha256": None, "python": "3.11", "torch": None, "os": "Linux"},
    "hardware": {"cpu": "c", "cores": 2, "memory_bytes": 1, "accelerator": None},
    "parameters": {"p": 2},
    "timing": {"started_utc": "2030-01-31T12:00:00Z", "wall_s": 1.5, "limit_s": 60, "peak_rss_bytes": 1,
               "cells_s": [0.5], "checkpoints_computed": 0, "checkpoints_reused": 0},
    "metrics": {"x": 0.5}, "per_seed": {}, "controls": [], "criteria": [RULE],
    "series": [{"name": "s", "kind": "line", "title": "t", "takeaway": "t", "alt": "a", "x": [1, "b"],
                "y": {"l": [1, None]}, "x_label": "x", "y_label": "y (nats)", "low": None, "high": None}],
    "notes": ["n"],
}  # fmt: skip


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, item in inner for p in paths(item, (*path, key)))]


def edited(path: tuple[Any, ...], change: Any) -> Any:
    document = json.loads(json.dumps(RESULT))
    if not path:
        return change
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    if change is KeyError:
        del inner[path[-1]]
    else:
        inner[path[-1]] = change
    return document


VALIDATOR = jsonschema.Draft202012Validator(json.loads((SCHEMAS / "result-1.json").read_text()))
CHANGES = st.sampled_from(
    [KeyError, None, True, 0, -3, 1.5, "", "text", "b001", [], [None], ["a"], {}, {"k": 1}]
)
ALSO_MEANING = "The series"  # figures whose curves don't fit: more than a schema can say


@settings(max_examples=500)
@given(st.sampled_from(paths(RESULT)), CHANGES)
def test_the_schema_and_the_code_accept_the_same_results(path: tuple[Any, ...], change: Any) -> None:
    document = edited(path, change) if (path or change is not KeyError) else None
    try:
        parse_result(document)
        accepted = True
    except BadBet as error:
        assume(ALSO_MEANING not in str(error))
        accepted = False
    assert VALIDATOR.is_valid(document) == accepted


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_plain_keeps_what_is_plain_json(value: Any) -> None:
    assert json.loads(canonical_json(plain(value, "v"))) == value


@given(st.dictionaries(st.text(max_size=12), json_values, max_size=4))
def test_any_document_is_a_bet_or_a_sentence(document: dict[str, Any]) -> None:
    with pytest.raises(BadBet):
        parse_bet({"registration": document, "editorial": document}, Path(tempfile.gettempdir()))
