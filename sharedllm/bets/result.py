"""The result of one run as a file: who ran what on which machine, which numbers came out, what they decide.

``catalogue/schema/result-1.json`` says the same as a JSON Schema; a test holds the two together. Keys carry
units.
"""

from __future__ import annotations

import json
import math
import re
import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from sharedllm.bets.criteria import VERDICTS, Judgement, Outcome, parse
from sharedllm.bets.registration import LEVELS, TIERS
from sharedllm.errors import BadBet
from sharedllm.store import atomic, sha256_of

__all__ = [
    "FATES",
    "SCHEMA",
    "SERIES_KINDS",
    "Code",
    "Deviation",
    "Environment",
    "Hardware",
    "Result",
    "Rule",
    "Series",
    "Timing",
    "read_result",
    "write_result",
]

SCHEMA = "sharedllm/result-1"
FATES = ("canonical", "exploratory", "interrupted")
SERIES_KINDS = ("line", "bar", "interval", "points")

_BET = re.compile(r"b[0-9]{3}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UTC = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")

Numbers = list[float | None]


@dataclass(frozen=True)
class Series:
    """What one figure shows: numbers, labels with units, a takeaway and a text for those who can't see it."""

    name: str
    kind: str  # one of SERIES_KINDS
    title: str
    takeaway: str
    alt: str
    x: list[float | str]
    y: Numbers | dict[str, Numbers]
    x_label: str
    y_label: str
    low: Numbers | dict[str, Numbers] | None = None
    high: Numbers | dict[str, Numbers] | None = None

    def __post_init__(self) -> None:
        """Raise ``BadBet`` for a missing text, an unknown kind, or curves that do not fit ``x``."""
        where = f"The series {self.name!r}"
        for key in ("name", "title", "takeaway", "alt", "x_label", "y_label"):
            if not getattr(self, key).strip():
                raise BadBet(f"{where} needs {key}: a figure says what it shows, in words as well.")
        if self.kind not in SERIES_KINDS:
            raise BadBet(f"{where} has the kind {self.kind!r}; known: {', '.join(SERIES_KINDS)}.")
        if self.kind == "interval" and None in (self.low, self.high):
            raise BadBet(f"{where} is an interval, so it needs low and high.")
        labels = set(self.y) if isinstance(self.y, dict) else None
        for key in ("y", "low", "high"):
            given = getattr(self, key)
            if given is None:
                continue
            if (set(given) if isinstance(given, dict) else None) != labels:
                raise BadBet(f"{where}: {key} must have the same labels as y.")
            curves = given.values() if isinstance(given, dict) else [given]
            if any(len(curve) != len(self.x) for curve in curves):
                raise BadBet(f"{where}: {key} must have one value for each of the {len(self.x)} of x.")


@dataclass(frozen=True)
class Deviation:
    """A parameter that ran with another value than the registered one."""

    parameter: str
    registered: Any
    ran: Any


@dataclass(frozen=True)
class Code:
    """What ran: commit (None outside git), whether the tree differed from it, and content hashes."""

    commit: str | None
    dirty: bool
    package_sha256: str
    notebook_sha256: str
    executed_sha256: str | None  # of the executed notebook that lies beside the result


@dataclass(frozen=True)
class Environment:
    """Which interpreter, torch and lock file were in use."""

    lock_sha256: str | None  # of constraints.txt
    python: str
    torch: str | None
    os: str


@dataclass(frozen=True)
class Hardware:
    """Which machine it was, in words."""

    cpu: str
    cores: int
    memory_bytes: int
    accelerator: str | None


@dataclass(frozen=True)
class Timing:
    """When it ran, how long, how much memory it took, and what was resumed."""

    started_utc: str
    wall_s: float
    limit_s: float
    peak_rss_bytes: int
    cells_s: list[float] = field(default_factory=list)
    checkpoints_computed: int = 0
    checkpoints_reused: int = 0  # above zero: wall_s is not the time of the whole run


@dataclass(frozen=True)
class Rule:
    """A control or criterion as it was judged; ``held`` is None where a value was null or impossible."""

    name: str
    level: str
    rule: str
    unit: str
    must: str
    was: str
    observed: float | bool | None
    held: bool | None
    per_seed: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """One run of one bet in one regime."""

    schema: str
    bet: str
    regime: str
    tier: str
    fate: str
    verdict: str
    registration_sha256: str
    ledger_line: int | None
    deviations: list[Deviation]
    code: Code
    environment: Environment
    hardware: Hardware
    parameters: dict[str, Any]
    timing: Timing
    metrics: dict[str, Any]
    per_seed: dict[str, Any]
    controls: list[Rule]
    criteria: list[Rule]
    series: list[Series]
    notes: list[str]

    def to_json(self) -> bytes:
        """The file's bytes, the same for the same result; refuses NaN."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode()

    @property
    def sha256(self) -> str:
        return sha256_of(self.to_json())


def rules(judgement: Judgement, per_seed: dict[str, Any]) -> tuple[list[Rule], list[Rule]]:
    """Controls and criteria of a judgement, each with the per-seed values that its rule reads."""

    def rule(outcome: Outcome) -> Rule:
        read = {name: per_seed[name] for name in parse(outcome.rule).names if name in per_seed}
        return Rule(**vars(outcome), per_seed=read)

    return [rule(one) for one in judgement.controls], [rule(one) for one in judgement.criteria]


def read_result(path: Path) -> Result:
    """Read and check a result; raises ``BadBet`` with the key that is wrong."""
    try:
        given = json.loads(path.read_bytes(), parse_constant=_no_constant)
    except FileNotFoundError:
        raise BadBet(f"There is no result {path}.") from None
    except (ValueError, RecursionError) as error:
        raise BadBet(f"{path} is not readable as JSON: {error}.") from None
    try:
        return parse_result(given)
    except BadBet as error:
        raise BadBet(f"{path}: {error}") from None


def parse_result(given: Any) -> Result:
    """Make a ``Result`` of parsed JSON; every key is required, known and of its type. Raises ``BadBet``."""
    result: Result = _build(Result, given, "result")
    choices = [
        ("schema", result.schema, (SCHEMA,)),
        ("tier", result.tier, TIERS),
        ("fate", result.fate, FATES),
        ("verdict", result.verdict, VERDICTS),
    ]
    choices += [("level", rule.level, ("control", *LEVELS)) for rule in (*result.controls, *result.criteria)]
    for key, value, allowed in choices:
        if value not in allowed:
            raise BadBet(f"{key} is {value!r}; known: {', '.join(allowed)}.")
    patterns = [
        ("bet", result.bet, _BET),
        ("started_utc", result.timing.started_utc, _UTC),
        ("commit", result.code.commit, _COMMIT),
        ("registration_sha256", result.registration_sha256, _SHA256),
        ("package_sha256", result.code.package_sha256, _SHA256),
        ("notebook_sha256", result.code.notebook_sha256, _SHA256),
        ("executed_sha256", result.code.executed_sha256, _SHA256),
        ("lock_sha256", result.environment.lock_sha256, _SHA256),
    ]
    for key, text, pattern in patterns:
        if text is not None and not pattern.fullmatch(text):
            raise BadBet(f"{key} can't be {text!r}.")
    return result


def write_result(path: Path, result: Result) -> None:
    """Write a result that reads back as itself, atomically; raises ``WriteFailed``, ``BadBet``."""
    data = result.to_json()
    parse_result(json.loads(data))
    atomic.write_bytes(path, data)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _build(wanted: Any, given: Any, where: str) -> Any:
    """Check ``given`` against a type and build its dataclasses."""
    if wanted is Any:
        return given
    if is_dataclass(wanted) and isinstance(wanted, type):
        return _build_record(wanted, given, where)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        return _build_union(arguments, given, where)
    if origin is list and isinstance(given, list):
        return [_build(arguments[0], item, f"{where}[{n}]") for n, item in enumerate(given)]
    if origin is dict and isinstance(given, dict):
        return {key: _build(arguments[1], value, f"{where}.{key}") for key, value in given.items()}
    if wanted is float and type(given) in (int, float) and math.isfinite(given):
        return given
    if wanted in (int, str, bool, types.NoneType) and type(given) is wanted:
        return given
    raise BadBet(f"{where} can't be {str(given)[:60]!r}.")


def _build_record(wanted: type, given: Any, where: str) -> Any:
    names = {each.name for each in fields(wanted)}
    if not isinstance(given, dict) or set(given) != names:
        keys = set(given) if isinstance(given, dict) else set()
        odd = ", ".join(sorted(keys ^ names)) or "no keys"
        raise BadBet(f"{where} must have exactly its known keys; missing or unknown: {odd}.")
    hints = typing.get_type_hints(wanted)
    return wanted(**{name: _build(hints[name], given[name], f"{where}.{name}") for name in names})


def _build_union(choices: tuple[Any, ...], given: Any, where: str) -> Any:
    for choice in choices:
        try:
            return _build(choice, given, where)
        except BadBet:
            continue
    raise BadBet(f"{where} can't be {str(given)[:60]!r}.")
