"""The language of rules: what it computes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from sharedllm.bets.criteria import Unevaluable, parse
from sharedllm.errors import BadBet

ATTACKS = [
    "__import__('os').system('touch /tmp/owned') == 0",
    "open('/etc/passwd').read() == x",
    "eval('1') == x",
    "(lambda: x)() > 0",
    "[y for y in x] == x",
    "{x for x in y} == x",
    "x.__class__.__mro__[1] == y",
    "x._private > 0",
    "__builtins__ == x",
    "x['a'][0] > 0",
    "x[0] > 0",
    "x[0:1] > 0",
    "x[y] > 0",
    "f'{x}' == x",
    "'a' < x",
    "'a' * 10 == x",
    "b'a' == x",
    "x ** 2 > 1",
    "10 ** 10 ** 10 > x",
    "9" * 400 + " > x",
    "1e999 > x",
    "1j > x",
    "x << 5 > 0",
    "x // 2 > 0",
    "x % 2 == 0",
    "x @ y == 0",
    "~x == 0",
    "x | y == 0",
    "x is None",
    "x in y",
    "x not in y",
    "x if y else z",
    "(x := 1) > 0",
    "await x",
    "yield x",
    "max(*x) > 0",
    "max(x, key=y) > 0",
    "max() > 0",
    "len > 0; x > 0",
    "x > 0\nimport os",
    "import os",
    "getattr(x, 'y') > 0",
    "x.items() > 0",
    "max(x)['a'] > 0",
    "(x)(y) > 0",
    "print(x) > 0",
    "range(10) == x",
    "globals() == x",
    "... == x",
    "None == x",
    "",
    "   ",
    "\x00",
    "x > 0\u2028",
    "1 > 0",
    "true",
    "x + 1",
    "(" * 150 + "x" + ")" * 150 + " > 0 and (",
    "-" * 490 + "x > 0",
    "not " * 100 + "x > 0",
    "+".join(["x"] * 200) + " > 0",
    "abs(" * 60 + "x" + ")" * 60 + " > 0",
    "x" * 501 + " > 0",
]


@pytest.mark.parametrize("text", ATTACKS, ids=lambda a: repr(a[:30]))
def test_what_is_not_in_the_language_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(BadBet):
        parse(text)


def test_a_name_that_looks_like_a_dunder_key_is_only_a_key() -> None:
    with pytest.raises(BadBet, match="no key '__class__'"):
        parse("x['__class__'] > 0").holds({"x": {"a": 1}})


METRICS: dict[str, Any] = {
    "a": 1.5,
    "n": 3,
    "yes": True,
    "no": False,
    "list": [1, 2, 3],
    "flags": [True, False],
    "by_user": {"milton": 0.2, "sajip": -0.1},
    "deep": {"x": {"y": 4}},
    "null": None,
    "empty": [],
    "mixed": [1, None],
    "texts": {"a": [1, 2]},
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("a <= 1.5", True),
        ("a < 1.5", False),
        ("a != 1.5", False),
        ("1 < a < 2", True),
        ("1 < a < 1.2", False),
        ("a + n * 2 - 1 / 2 == 7", True),
        ("-a < 0 and +a > 0", True),
        ("yes", True),
        ("not no", True),
        ("no or yes", True),
        ("yes == true and no == false", True),
        ("by_user.milton > 0", True),
        ("by_user['sajip'] > 0", False),
        ("deep.x.y == 4", True),
        ("deep['x'].y == 4", True),
        ("min(by_user) == -0.1", True),
        ("max(list) - min(list) == 2", True),
        ("mean(list) == 2 and sum(list) == 6 and len(list) == n", True),
        ("max(a, n, 2) == 3", True),
        ("abs(by_user.sajip) == 0.1", True),
        ("max(abs(by_user)) == 0.2", True),
        ("all(list > 0)", True),
        ("any(by_user < 0)", True),
        ("all(list * 2 == list + list)", True),
        ("any(flags)", True),
        ("all(flags)", False),
        ("len(by_user) == 2", True),
    ],
)
def test_a_rule_computes(text: str, holds: bool) -> None:
    assert parse(text).holds(METRICS) is holds


@pytest.mark.parametrize(
    "text",
    [
        "null < 1",
        "max(mixed) < 1",
        "a / (n - 3) > 0",
        "list",
        "list > 0",
        "a",
        "max(empty) > 0",
        "all(empty)",
        "a and yes",
        "max(a) > 0",
        "max(texts) > 0",
        "list + flags == 1",
        "0 < list < 5",
        "len(a) > 0",
        "a * 1e200 * 1e200 > 0",
        "deep > 1",
        "any(list)",
        "yes or null > 1",
    ],
)
def test_what_can_not_be_decided_is_said_and_not_guessed(text: str) -> None:
    with pytest.raises(Unevaluable):
        parse(text).holds(METRICS)


def test_an_enormous_recorded_integer_is_not_computed_with() -> None:
    with pytest.raises(Unevaluable, match="too large"):
        parse("x * x > 0").holds({"x": 10**200})


def test_a_missing_metric_is_a_sentence_that_lists_the_recorded_ones() -> None:
    with pytest.raises(
        BadBet, match=r"reads the metric 'b', which the notebook did not record. Recorded: a, n"
    ):
        parse("b < 1").holds({"a": 1, "n": 2})


def test_a_key_of_a_number_is_a_sentence() -> None:
    with pytest.raises(BadBet, match="recorded as a number, so it has no key"):
        parse("a.b > 0").holds(METRICS)
