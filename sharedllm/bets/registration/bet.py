"""The vocabulary of a bet: parameters, regimes, controls, criteria, and the plan of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sharedllm.bets.criteria import Expression, parse
from sharedllm.bets.registration.words import fits, known

__all__ = [
    "LEVELS",
    "TIERS",
    "TYPES",
    "Bet",
    "Control",
    "Criterion",
    "Editorial",
    "Overrides",
    "Parameter",
    "Plan",
    "Registration",
    "Value",
]

Value = int | float | str | bool | list[int] | list[float] | list[str]

TYPES = ("int", "float", "str", "bool", "list[int]", "list[float]", "list[str]")
LEVELS = ("strict", "lenient", "catastrophic")
TIERS = ("full", "smoke")


@dataclass(frozen=True)
class Parameter:
    """One typed parameter of a notebook, with its unit and its registered default."""

    name: str
    type: str
    unit: str
    value: Value
    about: str


@dataclass(frozen=True)
class Overrides:
    """What a regime or a tier changes: parameter values, and the limits of one run."""

    values: Mapping[str, Value] = field(default_factory=dict)
    limit_s: float | None = None
    memory_limit_bytes: int | None = None


@dataclass(frozen=True)
class Control:
    """A rule that must hold for a run to mean anything; one that fails makes the run VOID."""

    name: str
    expression: str
    unit: str
    about: str

    @cached_property
    def rule(self) -> Expression:
        return parse(self.expression)


@dataclass(frozen=True)
class Criterion(Control):
    """A rule of one level: strict, lenient or catastrophic."""

    level: str


@dataclass(frozen=True)
class Plan:
    """What one run will do: its parameters, those that were registered for it, and its limits."""

    regime: str
    tier: str
    parameters: Mapping[str, Value]
    registered: Mapping[str, Value]
    limit_s: float
    memory_limit_bytes: int | None

    @property
    def deviations(self) -> list[dict[str, Any]]:
        """List every parameter that differs from the registered one, with both values."""
        return [
            {"parameter": name, "registered": self.registered[name], "ran": value}
            for name, value in self.parameters.items()
            if value != self.registered[name]
        ]


@dataclass(frozen=True)
class Registration:
    """The hashed half of a bet."""

    claim: str
    limit_s: float
    memory_limit_bytes: int | None
    parameters: tuple[Parameter, ...]
    regimes: Mapping[str, Overrides]
    smoke: Overrides
    smoke_by_regime: Mapping[str, Overrides]
    controls: tuple[Control, ...]
    criteria: tuple[Criterion, ...]
    sha256: str

    def plan(self, regime: str, tier: str = "full", given: Mapping[str, Any] | None = None) -> Plan:
        """Resolve what one run passes to the notebook: default, then regime, then smoke, then what was
        ``given``.

        Raises ``BadBet`` for an unknown regime, tier or parameter, and for a value of the wrong type.
        """
        known(regime, self.regimes, "regime")
        known(tier, TIERS, "tier")
        layers = [self.regimes[regime]]
        if tier == "smoke":
            layers += [self.smoke, self.smoke_by_regime.get(regime, Overrides())]
        values = {parameter.name: parameter.value for parameter in self.parameters}
        limit_s, memory = self.limit_s, self.memory_limit_bytes
        for layer in layers:
            values |= layer.values
            limit_s = layer.limit_s or limit_s
            memory = layer.memory_limit_bytes or memory
        registered = dict(values)
        types = {parameter.name: parameter.type for parameter in self.parameters}
        for name, value in (given or {}).items():
            known(name, types, "parameter")
            values[name] = fits(value, types[name], f"The parameter {name}")
        return Plan(regime, tier, values, registered, limit_s, memory)


@dataclass(frozen=True)
class Editorial:
    """The half of a bet that may be reworded at any time."""

    id: str
    title: str
    chapter: str
    summary: str
    seed_claim: str = ""
    wording: str = ""
    not_covered: str = ""
    rooms: tuple[str, ...] = ()
    bets: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bet:
    """A bet and the folder it lives in: ``catalogue/<chapter>/bNNN-slug``."""

    folder: Path
    registration: Registration
    editorial: Editorial

    @property
    def id(self) -> str:
        return self.editorial.id

    @property
    def notebook(self) -> Path:
        return self.folder / "bet.ipynb"

    @property
    def results(self) -> Path:
        return self.folder / "results"
