"""From ``bet.toml`` to a bet, key by key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharedllm.bets.registration.bet import (
    LEVELS,
    TYPES,
    Bet,
    Control,
    Criterion,
    Editorial,
    Overrides,
    Parameter,
    Registration,
)
from sharedllm.bets.registration.words import fits, known, named_keys
from sharedllm.errors import BadBet
from sharedllm.store import canonical_json, sha256_of

__all__ = ["load_bet", "parse_bet"]

_RESERVED = ("regime", "tier")  # the runner always passes these two
_LIMITS = ("limit_s", "memory_limit_bytes")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_REGIME = re.compile(r"[a-z0-9][a-z0-9.+-]{0,31}")
_ID = re.compile(r"b[0-9]{3}")
_MAX_BYTES = 1 << 20
_MAX_RULE_NAME = 60


def load_bet(folder: Path) -> Bet:
    """Read ``folder/bet.toml``; raises ``BadBet`` with the file's name and what to change."""
    path = folder / "bet.toml"
    try:
        data = path.read_bytes()
        if len(data) > _MAX_BYTES:
            raise BadBet(f"it has {len(data):,} bytes; a registration fits {_MAX_BYTES:,}.")
        return parse_bet(tomllib.loads(data.decode("utf-8")), folder)
    except FileNotFoundError:
        raise BadBet(f"{folder} holds no bet.toml. `sharedllm bets new` makes one.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadBet(f"{path} is not readable as TOML: {error}.") from None
    except BadBet as error:
        raise BadBet(f"{path}: {error}") from None


def parse_bet(document: Mapping[str, Any], folder: Path) -> Bet:
    """Make a bet of a parsed ``bet.toml``; raises ``BadBet``."""
    tables = named_keys(document, "bet.toml", ("registration", "editorial"))
    bet = Bet(folder, _registration(tables["registration"]), _editorial(tables["editorial"]))
    if folder.name.split("-")[0] != bet.id or folder.parent.name != bet.editorial.chapter:
        raise BadBet(
            f"the folder {folder.parent.name}/{folder.name} does not fit chapter {bet.editorial.chapter!r} "
            f"and id {bet.id!r}; it must be {bet.editorial.chapter}/{bet.id}-<slug>."
        )
    return bet


def _registration(given: Any) -> Registration:
    table = named_keys(
        given,
        "[registration]",
        ("claim", "limit_s", "parameters", "regimes", "criteria"),
        ("memory_limit_bytes", "smoke", "controls"),
    )
    parameters = _parameters(table["parameters"])
    types = {parameter.name: parameter.type for parameter in parameters}
    regimes = _regimes(table["regimes"], types)
    smoke, by_regime = _smoke(table.get("smoke", {}), types, tuple(regimes))
    limits = _overrides({key: table[key] for key in _LIMITS if key in table}, "[registration]", {})
    controls = tuple(_rule(rule, f"control {n + 1}") for n, rule in enumerate(_rules(table, "controls")))
    criteria = tuple(_criterion(rule, n + 1) for n, rule in enumerate(_rules(table, "criteria")))
    _levels(criteria)
    _unique([rule.name for rule in (*controls, *criteria)], "control or criterion")
    try:
        digest = sha256_of(canonical_json(table))
    except (TypeError, ValueError) as error:
        raise BadBet(f"[registration] can't be hashed: {error}") from None
    return Registration(
        claim=_sentence(table["claim"], "claim"),
        limit_s=limits.limit_s or 0.0,
        memory_limit_bytes=limits.memory_limit_bytes,
        parameters=parameters,
        regimes=regimes,
        smoke=smoke,
        smoke_by_regime=by_regime,
        controls=controls,
        criteria=criteria,
        sha256=digest,
    )


def _parameters(given: Any) -> tuple[Parameter, ...]:
    if not isinstance(given, dict):
        raise BadBet("[registration.parameters] must be a table of tables.")
    parameters = []
    for name, table in given.items():
        if name in (*_RESERVED, *_LIMITS) or not _NAME.fullmatch(name):
            raise BadBet(
                f"{name!r} can't name a parameter: use lower_case with its unit, and none of "
                f"{', '.join((*_RESERVED, *_LIMITS))}."
            )
        where = f"[registration.parameters.{name}]"
        row = named_keys(table, where, ("type", "unit", "value", "about"))
        known(row["type"], TYPES, f"type in {where} named")
        value = fits(row["value"], row["type"], f"The value in {where}")
        parameters.append(
            Parameter(name, row["type"], _text(row, "unit", where), value, _text(row, "about", where))
        )
    return tuple(parameters)


def _regimes(given: Any, types: Mapping[str, str]) -> dict[str, Overrides]:
    if not isinstance(given, dict) or not given:
        raise BadBet("[registration.regimes] needs at least one regime, such as [registration.regimes.toy].")
    for name in given:
        if not _REGIME.fullmatch(name):
            raise BadBet(f"{name!r} can't name a regime: use letters, digits, and . + - between them.")
    return {name: _overrides(table, f"[registration.regimes.{name}]", types) for name, table in given.items()}


def _smoke(
    given: Any, types: Mapping[str, str], regimes: tuple[str, ...]
) -> tuple[Overrides, dict[str, Overrides]]:
    if not isinstance(given, dict):
        raise BadBet("[registration.smoke] must be a table.")
    shared = {key: value for key, value in given.items() if not isinstance(value, dict)}
    nested = {key: value for key, value in given.items() if isinstance(value, dict)}
    for name in nested:
        known(name, regimes, "regime in [registration.smoke] named")
    return _overrides(shared, "[registration.smoke]", types), {
        name: _overrides(table, f"[registration.smoke.{name}]", types) for name, table in nested.items()
    }


def _overrides(given: Any, where: str, types: Mapping[str, str]) -> Overrides:
    table = named_keys(given, where, (), (*types, *_LIMITS))
    values = {
        key: fits(value, types[key], f"{key} in {where}") for key, value in table.items() if key in types
    }
    limit_s = fits(table["limit_s"], "float", f"limit_s in {where}") if "limit_s" in table else None
    memory = table.get("memory_limit_bytes")
    if memory is not None:
        fits(memory, "int", f"memory_limit_bytes in {where}")
    if (limit_s is not None and limit_s <= 0) or (memory is not None and memory <= 0):
        raise BadBet(f"A limit in {where} must be above zero.")
    return Overrides(values, limit_s, memory)


def _rules(table: Mapping[str, Any], key: str) -> list[Any]:
    rules = table.get(key, [])
    if not isinstance(rules, list):
        raise BadBet(f"{key} must be written as [[registration.{key}]].")
    return rules


def _rule(given: Any, where: str) -> Control:
    row = named_keys(given, where, ("name", "expression", "unit", "about"))
    name, expression = _text(row, "name", where), _text(row, "expression", where)
    if not name.strip() or not name.isprintable() or len(name) > _MAX_RULE_NAME:
        raise BadBet(f"{where}: a rule's name is a few words on one line, not {name[:80]!r}.")
    rule = Control(name, expression, _text(row, "unit", where), _text(row, "about", where))
    try:
        rule.rule  # noqa: B018  parsed here, so that a bad expression is refused on reading
    except BadBet as error:
        raise BadBet(f"{where} ({name}): {error}") from None
    return rule


def _criterion(given: Any, number: int) -> Criterion:
    where = f"criterion {number}"
    row = named_keys(given, where, ("level", "name", "expression", "unit", "about"))
    known(str(row["level"]), LEVELS, f"level in {where} named")
    rule = _rule({key: value for key, value in row.items() if key != "level"}, where)
    return Criterion(rule.name, rule.expression, rule.unit, rule.about, level=row["level"])


def _levels(criteria: tuple[Criterion, ...]) -> None:
    missing = [level for level in LEVELS if level not in {criterion.level for criterion in criteria}]
    if missing:
        raise BadBet(
            f"No criterion of level {', '.join(missing)}. Each level needs one, so that every outcome "
            "has a name."
        )


def _editorial(given: Any) -> Editorial:
    lists = ("rooms", "bets", "sources")
    texts = ("id", "title", "chapter", "summary")
    optional = ("seed_claim", "wording", "not_covered")
    row = named_keys(given, "[editorial]", texts, (*optional, "links"))
    links = named_keys(row.get("links", {}), "[editorial.links]", (), lists)
    words = {key: _text(row, key, "[editorial]") for key in (*texts, *optional) if key in row}
    if not _ID.fullmatch(words["id"]):
        raise BadBet(f"id must look like 'b018', not {words['id']!r}.")
    if not _NAME.fullmatch(words["chapter"]):
        raise BadBet(f"chapter must be one lower-case word, not {words['chapter']!r}.")
    linked = {key: tuple(fits(value, "list[str]", f"{key} in links")) for key, value in links.items()}
    return Editorial(**words, **linked)  # type: ignore[arg-type]


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    return str(fits(row[key], "str", f"{key} in {where}"))


def _sentence(value: Any, what: str) -> str:
    text = str(fits(value, "str", what)).strip()
    if not text or "\n" in text:
        raise BadBet(f"{what} must be one sentence on one line.")
    return text


def _unique(names: list[str], what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadBet(f"The {what} name {twice[0]!r} is used twice.")
