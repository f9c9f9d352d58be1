"""The chain: what it appends, and what it notices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sharedllm.bets.ledger import Ledger, registered, standing, verdict
from sharedllm.errors import BadBet, CatalogueTampered

SHA, COMMIT = "a" * 64, "b" * 40


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv("SHAREDLLM_HOME", str(tmp_path / "home"))
    ledger = Ledger(tmp_path / "LEDGER.jsonl")
    ledger.append("registered", "b001", SHA, COMMIT)
    ledger.append("decided", "b001", SHA, COMMIT, regime="toy", verdict="FAIL", result_sha256="c" * 64)
    ledger.append("retracted", "b001", SHA, COMMIT, reason="code-bug", by="b062")
    return ledger


def lines(ledger: Ledger) -> list[bytes]:
    return ledger.path.read_bytes().splitlines(keepends=True)


def test_an_appended_ledger_reads_back(ledger: Ledger) -> None:
    assert [event.event for event in ledger.read()] == ["registered", "decided", "retracted"]


def test_a_ledger_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "none").read() == ()


@pytest.mark.parametrize("number", [1, 2])
def test_an_edited_line_is_named_by_the_next_one(ledger: Ledger, number: int) -> None:
    kept = lines(ledger)
    kept[number - 1] = kept[number - 1].replace(b"2", b"3", 1) if b"2" in kept[number - 1] else b""
    ledger.path.write_bytes(b"".join(kept))
    with pytest.raises(CatalogueTampered, match=f"line {number}|line {number + 1}"):
        ledger.read()


@pytest.mark.parametrize("number", [1, 2])
def test_a_removed_line_is_named(ledger: Ledger, number: int) -> None:
    kept = lines(ledger)
    del kept[number - 1]
    ledger.path.write_bytes(b"".join(kept))
    with pytest.raises(CatalogueTampered, match=f"line {number} does not follow"):
        ledger.read()


def test_swapped_lines_are_named(ledger: Ledger) -> None:
    first, second, third = lines(ledger)
    ledger.path.write_bytes(first + third + second)
    with pytest.raises(CatalogueTampered, match="line 2 does not follow"):
        ledger.read()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"not json\n", "line 4 is not an event"),
        (b"[]\n", "line 4 is not an event"),
        (b'{"n": 4}\n', "line 4 is not an event"),
        (b'{"n":4}', "ends in the middle of a line"),
        (b"\n", "line 4 is not an event"),
        (b"[" * 10_000 + b"\n", "line 4 is not an event"),
    ],
)
def test_a_line_that_is_no_event_is_named(ledger: Ledger, line: bytes, sentence: str) -> None:
    ledger.path.write_bytes(ledger.path.read_bytes() + line)
    with pytest.raises(CatalogueTampered, match=sentence):
        ledger.read()


def test_a_line_in_another_form_is_refused(ledger: Ledger) -> None:
    kept = lines(ledger)
    kept[-1] = json.dumps(json.loads(kept[-1])).encode() + b"\n"
    ledger.path.write_bytes(b"".join(kept))
    with pytest.raises(CatalogueTampered, match="line 3: it is not in canonical form"):
        ledger.read()


def test_nothing_is_appended_to_a_broken_ledger(ledger: Ledger) -> None:
    ledger.path.write_bytes(b"".join(lines(ledger)[1:]))
    with pytest.raises(CatalogueTampered):
        ledger.append("registered", "b002", SHA, COMMIT)


@pytest.mark.parametrize(
    ("event", "more", "sentence"),
    [
        ("deleted", {}, "event 'deleted' is none of registered, decided"),
        ("decided", {"regime": "toy", "verdict": "FAIL"}, "needs regime, verdict and result_sha256"),
        (
            "decided",
            {"regime": "toy", "verdict": "GREAT", "result_sha256": SHA},
            "verdict 'GREAT' is unknown",
        ),
        ("retracted", {"reason": "tired"}, "reason 'tired' is none of code-bug"),
        ("retracted", {}, "reason None is none of code-bug"),
    ],
)
def test_an_event_that_does_not_fit_is_refused(
    ledger: Ledger, event: str, more: dict[str, str], sentence: str
) -> None:
    before = ledger.path.read_bytes()
    with pytest.raises(BadBet, match=sentence):
        ledger.append(event, "b001", SHA, COMMIT, **more)
    assert ledger.path.read_bytes() == before


def test_a_retraction_keeps_the_verdict_in_sight(ledger: Ledger) -> None:
    events = ledger.read()
    assert str(standing(events, "b001", "toy")) == "retracted (code-bug) by b062"
    assert verdict(events, "b001", "toy") == "FAIL"


def test_another_regime_and_another_bet_are_not_touched(ledger: Ledger) -> None:
    events = ledger.read()[:2]
    assert standing(events, "b001", "135m").word == "registered"
    assert verdict(events, "b001", "135m") == "UNRUN"
    assert standing(events, "b002", "toy").word == "unregistered"
    assert registered(events, "b002") is None


def test_an_amended_registration_is_undecided_again(ledger: Ledger) -> None:
    ledger.append("registered", "b001", "d" * 64, COMMIT, reason="a typo in the unit")
    assert verdict(ledger.read(), "b001", "toy") == "UNRUN"
