"""From outcomes to a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sharedllm.bets.criteria import Verdict, judge
from sharedllm.bets.registration import Registration, parse_bet
from sharedllm.errors import BadBet


@pytest.fixture
def registration() -> Registration:
    def rule(name: str, expression: str, **more: str) -> dict[str, str]:
        return {"name": name, "expression": expression, "unit": "nats", "about": "", **more}

    document = {
        "registration": {
            "claim": "A claim.",
            "limit_s": 60,
            "parameters": {},
            "regimes": {"toy": {}},
            "controls": [rule("control", "control > 0")],
            "criteria": [
                rule("a", "x <= 1", level="strict"),
                rule("b", "y <= 1", level="strict"),
                rule("c", "x <= 2", level="lenient"),
                rule("d", "x >= 10", level="catastrophic"),
                rule("e", "y >= 10", level="catastrophic"),
            ],
        },
        "editorial": {"id": "b100", "title": "t", "chapter": "open", "summary": "s"},
    }
    return parse_bet(document, Path("open/b100-x")).registration


@pytest.mark.parametrize(
    ("x", "y", "control", "verdict"),
    [
        (1, 1, 1, "STRICT PASS"),
        (1, 2, 1, "LENIENT PASS"),
        (2, 20, 1, "LENIENT PASS"),
        (3, 1, 1, "FAIL"),
        (10, 1, 1, "CATASTROPHIC"),
        (3, 10, 1, "CATASTROPHIC"),
        (1, 1, 0, "VOID"),
        (10, 1, 0, "VOID"),
        (1, None, 1, "VOID"),
        (1, 1, None, "VOID"),
    ],
)
def test_the_verdict_follows_from_the_numbers(
    registration: Registration, x: Any, y: Any, control: Any, verdict: str
) -> None:
    assert judge(registration, {"x": x, "y": y, "control": control}).verdict == verdict


def test_another_registration_in_the_ledger_makes_a_run_void(registration: Registration) -> None:
    metrics = {"x": 1, "y": 1, "control": 1}
    assert judge(registration, metrics, registered_sha256="0" * 64).verdict is Verdict.VOID


def test_a_metric_that_was_not_recorded_gives_no_verdict(registration: Registration) -> None:
    with pytest.raises(BadBet, match="did not record"):
        judge(registration, {"x": 1, "control": 1})


def test_each_verdict_has_a_shape_of_its_own() -> None:
    assert [verdict.shape for verdict in Verdict] == list("●◐○✕∅–")
