"""Two renderings of a rule, and numbers for people."""

from __future__ import annotations

from typing import Any

import pytest

from sharedllm.bets.criteria import must, parse, quantity, was


@pytest.mark.parametrize(
    ("text", "unit", "metrics", "said_must", "said_was"),
    [
        ("r <= 1.1", "×", {"r": 1.084}, "must be ≤ 1.1×", "was 1.084×"),
        ("r <= 1e-12", "nats", {"r": 3.1e-13}, "must be ≤ 1×10⁻¹² nats", "was 3.1×10⁻¹³ nats"),
        ("s >= -2e-6", "nats", {"s": -1e-6}, "must be ≥ −2×10⁻⁶ nats", "was −1×10⁻⁶ nats"),
        ("n == 0", "tokens", {"n": 1200}, "must be 0 tokens", "was 1,200 tokens"),
        ("n != 3", "", {"n": 4}, "must be ≠ 3", "was 4"),
        ("0 <= x <= 1", "", {"x": 0.5}, "must be ≥ 0 and ≤ 1", "was 0.5"),
        ("ok", "", {"ok": False}, "must be yes", "was no"),
        ("not bad", "", {"bad": False}, "must not hold: bad", "was no"),
        ("a < b", "s", {"a": 1.5, "b": 2}, "a must be < b", "was 1.5 s against 2 s"),
        ("r > 0", "1", {"r": None}, "must be > 0", "was not measured"),
        ("a / b < 1", "", {"a": 1, "b": 0}, "must be < 1", "could not be judged: a division by zero"),
        (
            "g.milton > 0 and g['sajip'] > 0.1",
            "nats",
            {"g": {"milton": 0.2, "sajip": 0.05}},
            "g[milton] must be > 0 nats and g[sajip] must be > 0.1 nats",
            "g[milton] was 0.2 nats, g[sajip] was 0.05 nats",
        ),
        (
            "all(s >= 0)",
            "nats",
            {"s": [1, 2, 3, 4, 5, -6]},
            "every value s must be ≥ 0 nats",
            "was 6 values from −6 nats to 5 nats (no)",
        ),
    ],
)
def test_a_rule_is_said_twice(
    text: str, unit: str, metrics: dict[str, Any], said_must: str, said_was: str
) -> None:
    rule = parse(text)
    assert (must(rule, unit), was(rule, unit, metrics)) == (said_must, said_was)


def test_rounding_never_hides_that_a_bound_was_missed() -> None:
    assert was(parse("r <= 1.1"), "×", {"r": 1.1000001}) == "was 1.1000001×"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (12_345_678, "12,345,678"),
        (1234.5678, "1,235"),
        (98_765.4, "98,765"),
        (-0.0001234, "−1.234×10⁻⁴"),
        (5e20, "5×10²⁰"),
        (True, "yes"),
        (None, "not measured"),
        ([], "an empty list"),
        ([True, False, True], "yes for 2 of 3"),
        ({"a": 1, "b": 2}, "1, 2"),
        ([1, None], "2 values"),
    ],
)
def test_a_number_is_readable(value: Any, said: str) -> None:
    assert quantity(value) == said
