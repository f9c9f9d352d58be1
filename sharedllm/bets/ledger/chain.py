"""``LEDGER.jsonl``: one line per event, each with the SHA-256 of the line before it.

*Covered*: an edited, removed, inserted or reordered line, an unknown key or event, a line cut short. *Not
covered* by the chain alone: a changed or removed *last* line; ``check`` compares with git's history for that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sharedllm.bets.criteria import VERDICTS, Verdict
from sharedllm.errors import BadBet, CatalogueTampered
from sharedllm.store import atomic, canonical_json, home, sha256_of

__all__ = [
    "EVENTS",
    "REASONS",
    "REASONS_VERSION",
    "Event",
    "Ledger",
    "Standing",
    "registered",
    "standing",
    "verdict",
]

EVENTS = ("registered", "decided", "replicated", "corrected", "superseded", "retracted")
DECIDING = ("decided", "replicated", "corrected")  # those that bring a result
REASONS_VERSION = 1
REASONS = (
    "code-bug",
    "metric-error",
    "data-leak",
    "criteria-drift",
    "did-not-replicate",
    "scope-overstated",
    "superseded",
)
GENESIS = "0" * 64

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BET = re.compile(r"b[0-9]{3}")
_UTC = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@dataclass(frozen=True)
class Event:
    """One line of the ledger. Optional fields are left out of the line when they are None."""

    n: int
    prev: str  # SHA-256 of the line before, without its newline; 64 zeros for the first
    event: str
    bet: str
    registration_sha256: str
    commit: str
    at_utc: str
    regime: str | None = None  # None: all regimes of the bet
    result_sha256: str | None = None
    verdict: str | None = None
    reason: str | None = None
    by: str | None = None
    witness: str | None = None

    @property
    def line(self) -> bytes:
        return canonical_json({key: value for key, value in vars(self).items() if value is not None})

    @property
    def sha256(self) -> str:
        return sha256_of(self.line)


@dataclass(frozen=True)
class Standing:
    """Where a bet stands in one regime, by ledger event; ``event`` is the line that says so."""

    word: str  # unregistered, or one of EVENTS
    event: Event | None = None

    def __str__(self) -> str:
        reason = self.event.reason if self.event else None
        by = self.event.by if self.event else None
        return self.word + (f" ({reason})" if reason else "") + (f" by {by}" if by else "")


class Ledger:
    """The ledger file; reading verifies the whole chain, appending is atomic."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Event, ...]:
        """Return all events, oldest first; raises ``CatalogueTampered`` naming the first bad line."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return ()
        return parse_lines(data, self.path.name)

    def append(
        self, event: str, bet: str, registration_sha256: str, commit: str, **more: str | None
    ) -> Event:
        """Add one event at the end, with number, link and time; the file is replaced whole or not at all.

        Raises ``CatalogueTampered`` if the ledger is already broken, ``BadBet`` for a field that does not
        fit.
        """
        lock = home() / "locks" / f"ledger-{sha256_of(str(self.path.resolve()))[:16]}"
        with atomic.locked(lock):
            events = self.read()
            new = Event(
                n=len(events) + 1,
                prev=events[-1].sha256 if events else GENESIS,
                event=event,
                bet=bet,
                registration_sha256=registration_sha256,
                commit=commit,
                at_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                **more,
            )
            fault = _fault(new)
            if fault:
                raise BadBet(f"The ledger takes no such event: {fault}")
            atomic.write_bytes(self.path, b"".join(e.line + b"\n" for e in (*events, new)))
        return new


def parse_lines(data: bytes, name: str) -> tuple[Event, ...]:
    """Verify a ledger's bytes; raises ``CatalogueTampered`` naming the first line that is wrong."""
    if data and not data.endswith(b"\n"):
        raise CatalogueTampered(f"{name} ends in the middle of a line; restore it from git.")
    events: list[Event] = []
    before = GENESIS
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        event = _parse_line(line, f"{name} line {number}")
        if event.prev != before or event.n != number:
            raise CatalogueTampered(
                f"{name} line {number} does not follow from line {number - 1}: one of them was "
                "edited, removed or "
                f"moved. It expects the hash {event.prev[:12]}…, the line before has {before[:12]}…. "
                f"`git log -p -- {name}` shows who changed it; a correction is a new line, never an edit."
            )
        before = sha256_of(line)
        events.append(event)
    return tuple(events)


def _parse_line(line: bytes, where: str) -> Event:
    try:
        given: Any = json.loads(line)
        event = Event(**given)
        intact = event.line == line
    except (ValueError, TypeError, RecursionError):
        raise CatalogueTampered(f"{where} is not an event: {line[:80].decode(errors='replace')}") from None
    fault = None if intact else "it is not in canonical form."
    fault = fault or _fault(event)
    if fault:
        raise CatalogueTampered(f"{where}: {fault}")
    return event


def _fault(event: Event) -> str | None:
    """Say what is wrong with an event's fields, if anything is."""
    for each in fields(event):
        value = getattr(event, each.name)
        if not (type(value) is int if each.name == "n" else isinstance(value, str | None)):
            return f"{each.name} can't be {value!r}."
    checks = [
        (event.event in EVENTS, f"event {event.event!r} is none of {', '.join(EVENTS)}."),
        (bool(_BET.fullmatch(event.bet)), f"bet {event.bet!r} is no id such as b018."),
        (bool(_SHA256.fullmatch(event.registration_sha256)), "registration_sha256 is no SHA-256."),
        (bool(_COMMIT.fullmatch(event.commit)), f"commit {event.commit!r} is no full commit id."),
        (bool(_UTC.fullmatch(event.at_utc)), f"at_utc {event.at_utc!r} is not like 2030-01-31T12:00:00Z."),
        (event.verdict is None or event.verdict in VERDICTS, f"verdict {event.verdict!r} is unknown."),
        (
            event.result_sha256 is None or bool(_SHA256.fullmatch(event.result_sha256)),
            "result_sha256 is no SHA-256.",
        ),
        (
            event.event not in ("decided", "replicated")
            or None not in (event.result_sha256, event.verdict, event.regime),
            f"a {event.event} event needs regime, verdict and result_sha256.",
        ),
        (
            event.event not in ("corrected", "superseded", "retracted") or event.reason in REASONS,
            f"reason {event.reason!r} is none of {', '.join(REASONS)} (list {REASONS_VERSION}).",
        ),
    ]
    return next((sentence for fine, sentence in checks if not fine), None)


def registered(events: Iterable[Event], bet: str) -> Event | None:
    """Return the latest registration of ``bet``, if there is one."""
    return next((e for e in reversed(tuple(events)) if e.bet == bet and e.event == "registered"), None)


def standing(events: Iterable[Event], bet: str, regime: str) -> Standing:
    """Say where ``bet`` stands in ``regime``: its latest event there, and *unregistered* before the first."""
    mine = [e for e in events if e.bet == bet and e.regime in (None, regime)]
    return Standing(mine[-1].event, mine[-1]) if mine else Standing("unregistered")


def verdict(events: Iterable[Event], bet: str, regime: str) -> Verdict:
    """Return what decided ``bet`` in ``regime`` under the registration in force; UNRUN before that.

    A later run that did not replicate it changes the standing, not the verdict. Which hash ``bet.toml`` has
    now is not asked here; ``check`` refuses one that differs.
    """
    found = Verdict.UNRUN
    for event in events:
        if event.bet == bet and event.event == "registered":
            found = Verdict.UNRUN
        elif (event.bet, event.regime, event.event) == (bet, regime, "decided"):
            found = Verdict(event.verdict or "UNRUN")
    return found
