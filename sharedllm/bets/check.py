"""``sharedllm bets check``: every bet, every result, every line of the ledger, against each other and against
git.

*Covered*: an edited, removed or reordered ledger line (the last one too, where git remembers it), a criterion
changed after registration, a number changed in a result, a result without line or line without result, a
canonical result from a dirty tree or of a commit that did not hold the registration. *Not covered*: a history
that was rewritten as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sharedllm.bets import provenance
from sharedllm.bets.decide import inconsistencies, misplaced
from sharedllm.bets.ledger import Event, Ledger, registered
from sharedllm.bets.ledger.chain import DECIDING
from sharedllm.bets.ledger.history import holds_line, is_shallow, rewritten
from sharedllm.bets.registration import Bet, Catalogue, load_bet
from sharedllm.bets.result import Result, read_result
from sharedllm.bets.runner.notebook import MAX_EXECUTED_BYTES, check_notebook
from sharedllm.errors import SharedLLMError
from sharedllm.store import sha256_of

__all__ = ["check"]


def check(catalogue: Catalogue) -> list[str]:
    """Return one sentence per fault, in the order in which to mend them; empty if the catalogue is sound."""
    faults: list[str] = []
    bets = {bet.id: bet for bet in _bets(catalogue, faults)}
    try:
        events = Ledger(catalogue.ledger).read()
    except SharedLLMError as error:
        return [*faults, str(error)]
    faults += _history(catalogue)
    for bet in bets.values():
        faults += _registration(bet, events)
        faults += _results(catalogue, bet, events)
    faults += [
        f"LEDGER.jsonl line {event.n} speaks of {event.bet}, which is not in the catalogue; bets "
        "stay, also falsified."
        for event in events
        if event.bet not in bets and not _unreadable(catalogue, event.bet)
    ]
    return faults


def _bets(catalogue: Catalogue, faults: list[str]) -> Iterator[Bet]:
    seen: dict[str, Path] = {}
    for folder in catalogue.folders():
        try:
            bet = load_bet(folder)
            check_notebook(bet)
        except SharedLLMError as error:
            faults.append(str(error))
            continue
        if bet.id in seen:
            faults.append(f"{bet.id} is the id of {seen[bet.id]} and of {folder}.")
        seen[bet.id] = folder
        yield bet


def _unreadable(catalogue: Catalogue, bet: str) -> bool:
    return any(folder.name.split("-")[0] == bet for folder in catalogue.folders())


def _history(catalogue: Catalogue) -> list[str]:
    if provenance.head(catalogue.repository) is None:
        return [
            "There is no git history here, so the order of registration and run can't be checked. Clone it."
        ]
    if is_shallow(catalogue.repository):
        return ["This clone is shallow, so the ledger's past can't be checked: git fetch --unshallow."]
    return rewritten(catalogue)


def _registration(bet: Bet, events: tuple[Event, ...]) -> list[str]:
    line = registered(events, bet.id)
    if line is None or line.registration_sha256 == bet.registration.sha256:
        return []
    return [
        f"{bet.id}: [registration] of its bet.toml was changed after line {line.n} of the ledger "
        "registered it "
        f"({line.registration_sha256[:12]}…, now {bet.registration.sha256[:12]}…). Restore it from commit "
        f"{line.commit[:12]}, or amend it: sharedllm bets register {bet.id} --amend 'why'."
    ]


def _results(catalogue: Catalogue, bet: Bet, events: tuple[Event, ...]) -> list[str]:
    """Match result files and ledger lines by hash, then hold each result to its numbers and its history."""
    faults: list[str] = []
    files = {sha256_of(path): path for path in sorted(bet.results.glob("*.json"))}
    lines = {
        e.result_sha256: e for e in events if e.bet == bet.id and e.event in DECIDING and e.result_sha256
    }
    for digest, path in files.items():
        if digest not in lines:
            faults.append(
                f"{bet.id}: {path.name} is not a result that the ledger knows: a number in it was "
                "changed, or it was "
                f"never decided. Restore it from git, or remove it."
            )
    for digest, line in lines.items():
        if digest not in files:
            faults.append(
                f"{bet.id}: the result of ledger line {line.n} ({line.regime}, {line.verdict}) is "
                "missing or changed."
            )
            continue
        faults += [
            f"{bet.id}, {files[digest].name}: {fault}"
            for fault in _result(catalogue, bet, events, line, files[digest])
        ]
    for path in sorted(bet.results.glob("*.ipynb")):
        if path.stat().st_size > MAX_EXECUTED_BYTES:
            faults.append(f"{bet.id}: {path.name} has more than {MAX_EXECUTED_BYTES:,} bytes.")
    return faults


def _result(catalogue: Catalogue, bet: Bet, events: tuple[Event, ...], line: Event, path: Path) -> list[str]:
    try:
        result = read_result(path)
        faults = _against_line(catalogue, events, line, result) + misplaced(catalogue, bet, result)
        if result.registration_sha256 == bet.registration.sha256:
            faults += inconsistencies(bet, result, path.with_suffix(".ipynb"))
    except SharedLLMError as error:
        return [str(error)]
    return faults


def _against_line(catalogue: Catalogue, events: tuple[Event, ...], line: Event, result: Result) -> list[str]:
    registration = registered(events[: line.n], line.bet)
    commit = result.code.commit or ""
    descends: Callable[[str], bool] = lambda earlier: provenance.is_ancestor(  # noqa: E731
        catalogue.repository, earlier, commit
    )
    rules = [
        (result.fate == "canonical", f"it is {result.fate}, so it decides nothing."),
        (not result.code.dirty, "it came from a tree that was not clean."),
        (
            result.verdict == line.verdict,
            f"it says {result.verdict}, ledger line {line.n} says {line.verdict}.",
        ),
        ((result.bet, result.regime) == (line.bet, line.regime), f"it is not what line {line.n} speaks of."),
        (commit == line.commit, f"its commit is not that of ledger line {line.n}."),
        (registration is not None, f"nothing was registered before ledger line {line.n}."),
    ]
    if registration is not None:
        rules += [
            (
                result.registration_sha256 == registration.registration_sha256,
                f"it ran under another registration than ledger line {registration.n}.",
            ),
            (descends(registration.commit), "its commit does not descend from the one that was registered."),
            (
                holds_line(catalogue, commit, registration),
                f"ledger line {registration.n}, which registers it, was not committed before it ran.",
            ),
        ]
    return [sentence for fine, sentence in rules if not fine]
