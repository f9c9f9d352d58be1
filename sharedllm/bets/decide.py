"""Registering, deciding and marking: the only three ways in which the ledger grows.

*Covered*: runs that were smoke, dirty, altered, unregistered or of other code; results and notebooks that
were edited after the run; deciding twice. *Not covered*: a notebook that reports numbers it did not measure;
its source is committed and its outputs are kept, so that anyone can rerun it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sharedllm.bets import provenance
from sharedllm.bets.criteria import judge
from sharedllm.bets.ledger import Event, Ledger, registered
from sharedllm.bets.ledger.history import registered_before
from sharedllm.bets.registration import Bet, Catalogue
from sharedllm.bets.registration.words import known
from sharedllm.bets.result import Result, read_result, rules
from sharedllm.bets.runner.execution import EXECUTED, RESULT
from sharedllm.bets.runner.notebook import check_notebook, read_notebook, recorded
from sharedllm.errors import BadBet
from sharedllm.store import atomic, sha256_of

__all__ = ["decide", "inconsistencies", "mark", "register"]


def register(catalogue: Catalogue, bet: Bet, *, amend: str | None = None, by: str | None = None) -> Event:
    """Append the line that fixes the bet's registration.

    ``amend``: a reason, needed where another registration is in force. Raises ``BadBet`` for a bet that does
    not pass its checks, is not committed, or is registered as it is.
    """
    check_notebook(bet)
    repository = catalogue.repository
    commit = provenance.head(repository)
    names = [str(path.relative_to(repository)) for path in (bet.folder / "bet.toml", bet.notebook)]
    open_paths = [path for path in provenance.dirty_paths(repository) if path in names]
    if commit is None or open_paths:
        raise BadBet(f"Commit {' and '.join(open_paths or names)} first; a registration points at a commit.")
    ledger = Ledger(catalogue.ledger)
    before = registered(ledger.read(), bet.id)
    if before and before.registration_sha256 == bet.registration.sha256:
        raise BadBet(
            f"{bet.id} is registered with exactly this registration, in line {before.n} of the ledger."
        )
    if before and not amend:
        raise BadBet(
            f"{bet.id} is registered otherwise in line {before.n} of the ledger. Restore its "
            "[registration], or amend "
            f"it for all to see: sharedllm bets register {bet.id} --amend 'why'."
        )
    return ledger.append("registered", bet.id, bet.registration.sha256, commit, reason=amend, by=by)


def mark(
    catalogue: Catalogue, bet: Bet, event: str, *, reason: str, by: str | None, regime: str | None
) -> Event:
    """Correct, supersede or retract a bet for a reason of the closed list; the verdict stays in sight."""
    known(event, ("corrected", "superseded", "retracted"), "event")
    if regime is not None:
        known(regime, bet.registration.regimes, "regime")
    before = registered(Ledger(catalogue.ledger).read(), bet.id)
    commit = provenance.head(catalogue.repository)
    if before is None or commit is None:
        raise BadBet(f"{bet.id} is not registered, so there is nothing to mark as {event}.")
    return Ledger(catalogue.ledger).append(
        event, bet.id, before.registration_sha256, commit, reason=reason, by=by, regime=regime
    )


def decide(catalogue: Catalogue, bet: Bet, regime: str, run_folder: Path | None = None) -> Event:
    """Let a canonical run decide: its result and notebook enter the catalogue, with one line in the ledger.

    The first result of a registration decides it. A second one replicates it, or, with another verdict,
    corrects it (*did-not-replicate*). Raises ``BadBet`` for a run that may not decide.
    """
    known(regime, bet.registration.regimes, "regime")
    folder = run_folder or catalogue.runs / bet.id / f"{regime}-full"
    if not (folder / RESULT).exists():
        raise BadBet(
            f"There is no finished run in {folder}. Run it first: sharedllm bets run {bet.id} "
            f"--regime {regime}"
        )
    result = read_result(folder / RESULT)
    digest = sha256_of(folder / RESULT)
    _may_decide(catalogue, bet, regime, result, folder)
    ledger = Ledger(catalogue.ledger)
    mine = [e for e in ledger.read() if (e.bet, e.regime) == (bet.id, regime) and e.result_sha256]
    if digest in {event.result_sha256 for event in mine}:
        raise BadBet(
            f"This very run of {bet.id} in {regime} is in the ledger already; run it anew to replicate it."
        )
    same = [e for e in mine if e.registration_sha256 == bet.registration.sha256]
    event, reason = "decided", None
    if same:
        agrees = same[0].verdict == result.verdict
        event, reason = ("replicated", None) if agrees else ("corrected", "did-not-replicate")
    with _placed(bet, regime, folder, mine, replication=len(same)):
        return ledger.append(
            event,
            bet.id,
            bet.registration.sha256,
            result.code.commit or "",
            regime=regime,
            result_sha256=digest,
            verdict=result.verdict,
            reason=reason,
        )


def _may_decide(catalogue: Catalogue, bet: Bet, regime: str, result: Result, folder: Path) -> None:
    if result.fate != "canonical":
        why = " ".join(result.notes) or "It did not finish."
        raise BadBet(f"This run is {result.fate}, and only a canonical one decides. {why}")
    if (result.bet, result.regime, result.tier) != (bet.id, regime, "full"):
        raise BadBet(f"{folder} holds a run of {result.bet} in {result.regime}, tier {result.tier}.")
    if result.deviations or result.code.dirty:
        raise BadBet(
            f"{folder / RESULT} says canonical, and deviated or dirty as well: it was edited. Run it again."
        )
    _, doubt = registered_before(catalogue, bet, result.code.commit)
    if doubt:
        raise BadBet(f"This run can't decide: {doubt}")
    wrong = inconsistencies(bet, result, folder / EXECUTED) + misplaced(catalogue, bet, result)
    if wrong:
        raise BadBet(f"This run can't decide: {' '.join(wrong)}")


def inconsistencies(bet: Bet, result: Result, executed: Path) -> list[str]:
    """Say where a result contradicts its own numbers, its registration or its executed notebook."""
    wrong = []
    if result.registration_sha256 != bet.registration.sha256:
        return ["It ran under another registration than the one in bet.toml."]
    judgement = judge(bet.registration, result.metrics)
    if judgement.verdict.value != result.verdict:
        wrong.append(f"Its numbers give {judgement.verdict.value}, it says {result.verdict}.")
    if (result.controls, result.criteria) != rules(judgement, result.per_seed):
        wrong.append("Its controls or criteria are not what its numbers give.")
    if dict(bet.registration.plan(result.regime, result.tier).parameters) != result.parameters:
        wrong.append("Its parameters are not the registered ones.")
    if not executed.exists() or sha256_of(executed) != result.code.executed_sha256:
        return [*wrong, "Its executed notebook is missing or was changed."]
    payload = recorded(read_notebook(executed))
    if payload["metrics"] != result.metrics or payload["per_seed"] != result.per_seed:
        wrong.append("Its numbers are not those that its executed notebook recorded.")
    return wrong


def misplaced(catalogue: Catalogue, bet: Bet, result: Result) -> list[str]:
    """Say where a result contradicts the history of the repository."""
    repository, commit = catalogue.repository, result.code.commit or ""
    head = provenance.head(repository)
    if head is None or not provenance.is_ancestor(repository, commit, head):
        return [f"Its commit {commit[:12] or '(none)'} is not part of this history."]
    path = bet.notebook.relative_to(repository).as_posix()
    source = provenance.git(repository, "show", f"{commit}:./{path}")
    if source is None or sha256_of(source) != result.code.notebook_sha256:
        return [f"Its notebook is not the one that commit {commit[:12]} holds."]
    package = provenance.package_sha256_at(repository, commit)
    if package not in (None, result.code.package_sha256):
        return [f"The package that ran is not the one that commit {commit[:12]} holds."]
    return []


@contextlib.contextmanager
def _placed(bet: Bet, regime: str, folder: Path, mine: list[Event], replication: int) -> Iterator[None]:
    """Copy result and notebook into the catalogue, and take them out again if the ledger refuses the line."""
    name = f"{regime}.r{replication + 1}" if replication else regime
    target = bet.results / f"{name}.json"
    if target.exists():  # decided under an earlier registration: it keeps its numbers under its own hash
        earlier = f"{regime}.{sha256_of(target)[:8]}"
        for suffix in (".json", ".ipynb"):
            target.with_suffix(suffix).rename(bet.results / (earlier + suffix))
    copies = [(folder / EXECUTED, bet.results / f"{name}.ipynb"), (folder / RESULT, target)]
    try:
        for source, copy in copies:
            atomic.write_bytes(copy, source.read_bytes())
        yield
    except BaseException:
        for _, copy in copies:
            copy.unlink(missing_ok=True)
        raise
