"""What git remembers of the ledger: which lines a commit held, and whether any was ever changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sharedllm.bets.ledger.chain import Event, Ledger, registered
from sharedllm.bets.provenance import git
from sharedllm.bets.registration import Bet, Catalogue

__all__ = ["holds_line", "is_shallow", "ledger_at", "registered_before", "rewritten"]


def registered_before(catalogue: Catalogue, bet: Bet, commit: str | None) -> tuple[Event | None, str | None]:
    """Return the bet's registration in force, and a sentence if ``commit`` did not hold it yet.

    Raises ``CatalogueTampered`` for a broken ledger.
    """
    event = registered(Ledger(catalogue.ledger).read(), bet.id)
    if event is None:
        return None, f"{bet.id} is not registered (`sharedllm bets register {bet.id}`)."
    if event.registration_sha256 != bet.registration.sha256:
        return event, (
            f"The registration of {bet.id} was changed after it was registered in line {event.n} of "
            "the ledger."
        )
    if commit is None:
        return event, "It ran outside a git repository."
    if not holds_line(catalogue, commit, event):
        return (
            event,
            f"Line {event.n} of the ledger, which registers {bet.id}, was not committed before the run.",
        )
    return event, None


def ledger_at(catalogue: Catalogue, commit: str) -> bytes | None:
    """Return the ledger's bytes at ``commit``, if it was there."""
    path = _path(catalogue)
    return git(catalogue.repository, "show", f"{commit}:./{path}")


def holds_line(catalogue: Catalogue, commit: str, event: Event) -> bool:
    """Say whether the ledger at ``commit`` already held ``event``, byte for byte."""
    lines = (ledger_at(catalogue, commit) or b"").split(b"\n")
    return len(lines) > event.n and lines[event.n - 1] == event.line


def is_shallow(repository: Path) -> bool:
    return (git(repository, "rev-parse", "--is-shallow-repository") or b"").strip() == b"true"


def rewritten(catalogue: Catalogue) -> list[str]:
    """Say of each line that git remembers and the ledger no longer holds in which commit it was there."""
    path = _path(catalogue)
    now = catalogue.ledger.read_bytes() if catalogue.ledger.exists() else b""
    printed = git(catalogue.repository, "log", "--format=%H", "--", f"./{path}") or b""
    problems: dict[int, str] = {}
    for commit in printed.decode().split():
        then = ledger_at(catalogue, commit) or b""
        if now.startswith(then):
            continue
        number = _first_difference(then.split(b"\n"), now.split(b"\n"))
        problems[number] = (
            f"{catalogue.ledger.name} line {number} is not what it was in commit {commit[:12]}: it "
            "was edited or "
            f"removed. Restore it: git show {commit[:12]}:{path}. A correction is a new line, never an edit."
        )
    return [problems[number] for number in sorted(problems)]


def _first_difference(then: Sequence[bytes], now: Sequence[bytes]) -> int:
    pairs = enumerate(zip(then, now, strict=False), start=1)
    return next((n for n, (before, after) in pairs if before != after), len(now) + 1)


def _path(catalogue: Catalogue) -> str:
    return catalogue.ledger.relative_to(catalogue.repository).as_posix()
