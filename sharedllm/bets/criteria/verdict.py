"""The verdict that rules add up to. A flag never mints one: it is computed from recorded numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sharedllm.bets.criteria import wording
from sharedllm.bets.criteria.expression import Unevaluable

if TYPE_CHECKING:
    from sharedllm.bets.registration import Control, Registration

__all__ = ["VERDICTS", "Judgement", "Outcome", "Verdict", "judge"]


class Verdict(StrEnum):
    """What a canonical run decided, as its word."""

    STRICT_PASS = "STRICT PASS"
    LENIENT_PASS = "LENIENT PASS"
    FAIL = "FAIL"
    CATASTROPHIC = "CATASTROPHIC"
    VOID = "VOID"
    UNRUN = "UNRUN"

    @property
    def shape(self) -> str:
        """The verdict as a shape, so that it never rests on colour alone."""
        return _SHAPES[self]


_SHAPES = dict(zip(Verdict, "●◐○✕∅–", strict=True))
VERDICTS = tuple(verdict.value for verdict in Verdict)


@dataclass(frozen=True)
class Outcome:
    """One rule and what became of it; ``held`` is None where a value was null or impossible."""

    name: str
    level: str  # "control", or the criterion's level
    rule: str
    unit: str
    must: str
    was: str
    observed: float | int | bool | None
    held: bool | None


@dataclass(frozen=True)
class Judgement:
    """Every control and criterion with its outcome, and the verdict."""

    controls: tuple[Outcome, ...]
    criteria: tuple[Outcome, ...]
    verdict: Verdict


def judge(
    registration: Registration, metrics: Mapping[str, Any], registered_sha256: str | None = None
) -> Judgement:
    """Judge recorded ``metrics`` by the registered rules.

    VOID if a control failed, a rule could not be evaluated, or ``registered_sha256`` (the ledger's; None: not
    asked) is another registration's. Then STRICT PASS, LENIENT PASS, CATASTROPHIC, FAIL, in this order.
    Raises ``BadBet`` for a metric that a rule reads and the notebook did not record.
    """
    controls = tuple(_outcome(rule, "control", metrics) for rule in registration.controls)
    criteria = tuple(_outcome(rule, rule.level, metrics) for rule in registration.criteria)
    foreign = registered_sha256 is not None and registered_sha256 != registration.sha256
    return Judgement(controls, criteria, _verdict(controls, criteria, foreign))


def _verdict(controls: tuple[Outcome, ...], criteria: tuple[Outcome, ...], foreign: bool) -> Verdict:
    def held(level: str) -> list[bool | None]:
        return [outcome.held for outcome in criteria if outcome.level == level]

    if foreign or not all(control.held for control in controls) or None in {c.held for c in criteria}:
        return Verdict.VOID
    if all(held("strict")):
        return Verdict.STRICT_PASS
    if all(held("lenient")):
        return Verdict.LENIENT_PASS
    return Verdict.CATASTROPHIC if any(held("catastrophic")) else Verdict.FAIL


def _outcome(rule: Control, level: str, metrics: Mapping[str, Any]) -> Outcome:
    held: bool | None
    try:
        held = rule.rule.holds(metrics)
    except Unevaluable:
        held = None
    return Outcome(
        name=rule.name,
        level=level,
        rule=rule.expression,
        unit=rule.unit,
        must=wording.must(rule.rule, rule.unit),
        was=wording.was(rule.rule, rule.unit, metrics),
        observed=wording.observed(rule.rule, metrics),
        held=held,
    )
