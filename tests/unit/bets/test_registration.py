"""Reading ``bet.toml``: every typo is a sentence, every value has its type, the hash covers all of it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from sharedllm.bets.registration import Catalogue, load_bet, parse_bet
from sharedllm.errors import BadBet, UnknownName

TOML = """
[registration]
claim = "A claim."
limit_s = 60
[registration.parameters.tokens]
type = "int"
unit = "tokens"
value = 1000
about = "How many."
[registration.parameters.lr]
type = "float"
unit = "1"
value = 1
about = "Rate."
[registration.parameters.seeds]
type = "list[int]"
unit = "seeds"
value = [0, 1]
about = "Seeds."
[registration.regimes.toy]
[registration.regimes.135m]
tokens = 50
limit_s = 7200
[registration.smoke]
tokens = 10
[registration.smoke.135m]
tokens = 5
limit_s = 30
memory_limit_bytes = 1_000_000
[[registration.controls]]
name = "control"
expression = "c > 0"
unit = "nats"
about = ""
[[registration.criteria]]
level = "strict"
name = "strict"
expression = "x <= 1"
unit = "nats"
about = ""
[[registration.criteria]]
level = "lenient"
name = "lenient"
expression = "x <= 2"
unit = "nats"
about = ""
[[registration.criteria]]
level = "catastrophic"
name = "catastrophic"
expression = "x > 3"
unit = "nats"
about = ""
[editorial]
id = "b100"
title = "Title"
chapter = "open"
summary = "Summary."
[editorial.links]
rooms = ["model"]
"""
FOLDER = Path("open/b100-slug")


def parsed(old: str = "", new: str = "") -> Any:
    assert old in TOML
    return parse_bet(tomllib.loads(TOML.replace(old, new, 1) if old else TOML), FOLDER)


def test_a_bet_is_read_whole() -> None:
    bet = parsed()
    assert (bet.id, bet.registration.limit_s, bet.editorial.rooms) == ("b100", 60.0, ("model",))
    assert [parameter.value for parameter in bet.registration.parameters] == [1000, 1.0, [0, 1]]
    assert [criterion.level for criterion in bet.registration.criteria] == [
        "strict",
        "lenient",
        "catastrophic",
    ]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("claim =", "clam =", "There is no key in .registration. named 'clam'. Did you mean 'claim'"),
        ("[editorial.links]\nrooms", "[editorial.links]\nroom", "Did you mean 'rooms'"),
        ("limit_s = 60\n", "", "lacks limit_s"),
        ("limit_s = 60\n", "limit_s = 0\n", "must be above zero"),
        ("limit_s = 60\n", "limit_s = inf\n", "must be finite"),
        ("limit_s = 60\n", 'limit_s = "60"\n', "must be of type float, not '60' .str."),
        ('type = "int"', 'type = "integer"', "There is no type .* named 'integer'. Did you mean"),
        ("value = 1000", "value = 1000.5", "must be of type int, not 1000.5"),
        ("value = 1000", "value = true", "must be of type int, not True"),
        ("value = [0, 1]", "value = [0, 1.5]", "item 2, must be of type int"),
        ("value = [0, 1]", "value = 0", r"must be a list\[int\], not 0"),
        ("value = 1\n", "value = nan\n", "must be finite"),
        ("value = 1\n", "value = 2030-01-01\n", "must be of type float"),
        ("parameters.tokens]", "parameters.tier]", "'tier' can't name a parameter"),
        ("parameters.tokens]", "parameters.Tokens]", "'Tokens' can't name a parameter"),
        ("tokens = 50", "token = 50", "Did you mean 'tokens'"),
        ("tokens = 10", 'tokens = "ten"', "must be of type int, not 'ten'"),
        ("[registration.smoke.135m]", "[registration.smoke.136m]", "Did you mean '135m'"),
        ("[registration.regimes.toy]", "[registration.regimes.'../toy']", "can't name a regime"),
        ('level = "strict"', 'level = "strickt"', "Did you mean 'strict'"),
        ('level = "strict"', 'level = "lenient"', "No criterion of level strict"),
        ('"x <= 1"', '"x <= "', "criterion 1 .strict.: 'x <= ' is not an expression"),
        ('"x <= 1"', "\"__import__('os')\"", "not in the language of rules"),
        ('name = "lenient"', 'name = "strict"', "'strict' is used twice"),
        ('name = "lenient"', 'name = "a\\nb"', "a rule's name is a few words"),
        ('id = "b100"', 'id = "100"', "id must look like"),
        ('id = "b100"', 'id = "b101"', "does not fit chapter 'open' and id 'b101'"),
        ('chapter = "open"', 'chapter = "wire"', "does not fit chapter 'wire'"),
        ('claim = "A claim."', 'claim = ""', "must be one sentence"),
        ('claim = "A claim."', 'claim = "a\\nb"', "must be one sentence"),
    ],
)
def test_a_mistake_is_one_sentence(old: str, new: str, sentence: str) -> None:
    with pytest.raises(BadBet, match=sentence):
        parsed(old, new)


def test_the_hash_ignores_editorial_text_and_the_order_of_keys() -> None:
    hashes = {
        parsed().registration.sha256,
        parsed('title = "Title"', 'title = "Other"').registration.sha256,
        parsed('claim = "A claim."\nlimit_s = 60', 'limit_s = 60\nclaim = "A claim."').registration.sha256,
    }
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [("x <= 1", "x <= 1.5"), ("1000", "1001"), ("A claim.", "A claim!"), ('about = "Seeds."', 'about = ""')],
)
def test_the_hash_covers_everything_registered(old: str, new: str) -> None:
    assert parsed(old, new).registration.sha256 != parsed().registration.sha256


def test_a_plan_takes_default_then_regime_then_smoke() -> None:
    registration = parsed().registration
    plans = [
        registration.plan(regime, tier)
        for regime, tier in [("toy", "full"), ("135m", "full"), ("toy", "smoke"), ("135m", "smoke")]
    ]
    assert [plan.parameters["tokens"] for plan in plans] == [1000, 50, 10, 5]
    assert [plan.limit_s for plan in plans] == [60, 7200, 60, 30]
    assert [plan.memory_limit_bytes for plan in plans] == [None, None, None, 1_000_000]
    assert not any(plan.deviations for plan in plans)


def test_an_override_is_listed_as_a_deviation() -> None:
    plan = parsed().registration.plan("toy", given={"tokens": 7})
    assert plan.deviations == [{"parameter": "tokens", "registered": 1000, "ran": 7}]


@pytest.mark.parametrize(
    ("regime", "tier", "given", "sentence"),
    [
        ("30m", "full", {}, "There is no regime '30m'.* Known: 135m, toy"),
        ("toy", "smok", {}, "no tier 'smok'. Did you mean 'smoke'"),
        (
            "toy",
            "full",
            {"tokns": 1},
            "no parameter 'tokns'. Did you mean 'tokens'.* Known: lr, seeds, tokens",
        ),
        ("toy", "full", {"tokens": "7"}, "The parameter tokens must be of type int, not '7'"),
        ("toy", "full", {"regime": "toy"}, "no parameter 'regime'"),
    ],
)
def test_a_run_with_a_wrong_parameter_is_refused(
    regime: str, tier: str, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadBet, match=sentence):
        parsed().registration.plan(regime, tier, given)


@pytest.mark.parametrize("data", [b"[registration", b"\xff\xfe", b"x" * (1 << 21)])
def test_an_unreadable_file_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bet.toml").write_bytes(data)
    with pytest.raises(BadBet, match=r"bet\.toml"):
        load_bet(tmp_path)


def test_an_unknown_bet_is_a_sentence_with_the_ids_there_are(tmp_path: Path) -> None:
    folder = tmp_path / "catalogue" / "open" / "b100-slug"
    folder.mkdir(parents=True)
    (folder / "bet.toml").write_text(TOML)
    catalogue = Catalogue(tmp_path / "catalogue")
    assert catalogue.bet("b100").id == catalogue.bet("b100-slug").id == "b100"
    with pytest.raises(UnknownName, match=r"no bet 'b101'. Did you mean b100\? Known: b100"):
        catalogue.bet("b101")
