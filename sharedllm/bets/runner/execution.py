"""One run, from a registration to a folder with result, executed notebook and log."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sharedllm.bets import provenance
from sharedllm.bets.criteria import Verdict, judge
from sharedllm.bets.ledger.chain import Event
from sharedllm.bets.ledger.history import registered_before
from sharedllm.bets.registration import Bet, Catalogue, Plan
from sharedllm.bets.result import SCHEMA, Code, Deviation, Result, Series, Timing, rules, write_result
from sharedllm.bets.runner.notebook import check_notebook, read_notebook, recorded, slim
from sharedllm.bets.runner.process import Limits, Watched, watch
from sharedllm.bets.runner.surroundings import anonymous, environment
from sharedllm.errors import RunFailed, SharedLLMError
from sharedllm.store import atomic, sha256_of

__all__ = ["DEFAULT_OUTPUT_LIMIT_BYTES", "EXECUTED", "RESULT", "run"]

DEFAULT_OUTPUT_LIMIT_BYTES = 16 << 20
EXECUTED = "executed.ipynb"
RESULT = "result.json"


def run(
    catalogue: Catalogue,
    bet: Bet,
    regime: str,
    *,
    tier: str = "full",
    overrides: Mapping[str, Any] | None = None,
    out_dir: Path | None = None,
    output_limit_bytes: int = DEFAULT_OUTPUT_LIMIT_BYTES,
    on_event: Callable[[Mapping[str, Any]], None] = lambda event: None,
) -> Result:
    """Execute ``bet`` in ``regime`` and judge it; ``out_dir`` (default under ``build/runs``) gets it all.

    ``on_event`` sees cells, progress lines and times as they happen. Raises ``BadBet`` before anything runs
    for a parameter or notebook that does not fit, and ``RunFailed`` or ``WriteFailed`` for a run that did not
    end well: its notebook and log are then kept in ``<out_dir>-interrupted``, and an earlier good run stays
    as it was.
    """
    plan = bet.registration.plan(regime, tier, overrides)
    check_notebook(bet)
    if importlib.util.find_spec("papermill") is None:
        raise RunFailed("Running a bet needs papermill: pip install 'sharedllm[bets]'.")
    code = provenance.code(catalogue.repository, bet.notebook)
    event, doubts = _doubts(catalogue, bet, plan, code.dirty, code.commit)
    target = (out_dir or catalogue.runs / bet.id / f"{regime}-{tier}").absolute()
    started_utc = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with _scratch(target) as folder:
        limits = Limits(plan.limit_s, plan.memory_limit_bytes, output_limit_bytes)
        seen = _execute(catalogue, bet, plan, code, folder, limits, on_event)
        draft = _draft(catalogue, bet, plan, code, event, started_utc, seen)
        try:
            _ended_well(seen, plan, limits, folder)
            result = _judged(catalogue, bet, draft, folder, doubts)
        except SharedLLMError as error:
            kept = _keep_interrupted(folder, target, draft, str(error))
            raise type(error)(f"{error} {kept}") from None
        write_result(folder / RESULT, result)
        _publish(folder, target)
    return result


def _execute(
    catalogue: Catalogue,
    bet: Bet,
    plan: Plan,
    code: Code,
    folder: Path,
    limits: Limits,
    on_event: Callable[[Mapping[str, Any]], None],
) -> Watched:
    job = {
        "notebook": str(bet.notebook.absolute()),
        "output": str(folder / EXECUTED),
        "parameters": {"regime": plan.regime, "tier": plan.tier, **plan.parameters},
    }
    setting = provenance.environment(catalogue.repository)
    sources = [code.package_sha256, code.notebook_sha256, bet.registration.sha256]
    scope = sha256_of([*sources, setting.python, setting.torch])
    with environment(scope, limits.output_bytes) as env:
        return watch(job, folder, env, limits, on_event)


def _doubts(
    catalogue: Catalogue, bet: Bet, plan: Plan, dirty: bool, commit: str | None
) -> tuple[Event | None, list[str]]:
    """Return the registration in force, and why a run now would be exploratory (nothing: it is canonical)."""
    event, doubt = registered_before(catalogue, bet, commit)
    doubts = [doubt] if doubt else []
    if plan.tier != "full":
        doubts.append(f"It is of tier {plan.tier}; only tier full decides.")
    if plan.deviations:
        names = ", ".join(deviation["parameter"] for deviation in plan.deviations)
        doubts.append(f"It deviates from the registration in {names}.")
    if dirty:
        paths = provenance.dirty_paths(catalogue.repository)
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        doubts.append(f"The working tree was not clean: {', '.join(paths[:3])}{more}.")
    return event, doubts


def _draft(
    catalogue: Catalogue,
    bet: Bet,
    plan: Plan,
    code: Code,
    event: Event | None,
    started_utc: str,
    seen: Watched,
) -> Result:
    """The result as far as it does not depend on what was recorded."""
    return Result(
        schema=SCHEMA,
        bet=bet.id,
        regime=plan.regime,
        tier=plan.tier,
        fate="interrupted",
        verdict=Verdict.UNRUN.value,
        registration_sha256=bet.registration.sha256,
        ledger_line=event.n if event else None,
        deviations=[Deviation(**deviation) for deviation in plan.deviations],
        code=code,
        environment=provenance.environment(catalogue.repository),
        hardware=provenance.hardware(),
        parameters=dict(plan.parameters),
        timing=Timing(
            started_utc=started_utc,
            wall_s=round(seen.wall_s, 3),
            limit_s=plan.limit_s,
            peak_rss_bytes=seen.peak_rss_bytes,
            cells_s=seen.cells_s,
        ),
        metrics={},
        per_seed={},
        controls=[],
        criteria=[],
        series=[],
        notes=[],
    )


def _judged(catalogue: Catalogue, bet: Bet, draft: Result, folder: Path, doubts: list[str]) -> Result:
    """Read the record, judge it, write the slim notebook, and say whether the run may decide."""
    notebook = read_notebook(folder / EXECUTED)
    payload = recorded(notebook)
    judgement = judge(bet.registration, payload["metrics"])
    controls, criteria = rules(judgement, payload["per_seed"])
    data, lost = slim(anonymous(notebook, catalogue, folder))
    atomic.write_bytes(folder / EXECUTED, data)
    after = provenance.code(catalogue.repository, bet.notebook)
    now = (after.package_sha256, after.notebook_sha256)
    if now != (draft.code.package_sha256, draft.code.notebook_sha256):
        doubts = [*doubts, "The package or the notebook changed while it ran."]
    counts = payload["checkpoints"]
    return dataclasses.replace(
        draft,
        fate="exploratory" if doubts else "canonical",
        verdict=judgement.verdict.value,
        code=dataclasses.replace(draft.code, executed_sha256=sha256_of(data)),
        timing=dataclasses.replace(
            draft.timing, checkpoints_computed=counts["computed"], checkpoints_reused=counts["reused"]
        ),
        metrics=payload["metrics"],
        per_seed=payload["per_seed"],
        controls=controls,
        criteria=criteria,
        series=[Series(**series) for series in payload["series"]],
        notes=[*doubts, *lost],
    )


def _ended_well(seen: Watched, plan: Plan, limits: Limits, folder: Path) -> None:
    """Raise ``RunFailed`` with one sentence for each way in which a run can end badly."""
    if seen.how == "finished":
        return
    where = f"in cell {seen.cell} of {seen.cells}" if seen.cells else "before its first cell"
    tail = "".join(f"\n    {line}" for line in seen.tail)
    log = "".join(f"\n    {line}" for line in _log_tail(folder / "run.log"))
    sentences = {
        "time_limit": f"The run reached its limit of {plan.limit_s:,.0f} s {where} and was ended.",
        "memory_limit": f"The run used more than its {limits.memory_bytes or 0:,} bytes of memory "
        f"{where} and was ended.",
        "output_limit": f"The notebook printed more than {limits.output_bytes:,} bytes, {where}, "
        "and was ended.",
        "crashed": f"The notebook crashed {where}: {seen.error}{tail}\n",
        "dead": f"The notebook's process died {where}, as it does when memory runs out.{log}",
        "write_failed": f"The notebook could not be kept while it ran, {where}: {seen.error}",
        "stopped": f"The run was stopped {where}.",
    }
    raise RunFailed(sentences.get(seen.how, f"The run ended without a word {where}.{log}"))


def _keep_interrupted(folder: Path, target: Path, draft: Result, why: str) -> str:
    """Move what there is to ``<target>-interrupted``; returns a sentence that says where."""
    place = target.with_name(f"{target.name}-interrupted")
    try:
        write_result(folder / RESULT, dataclasses.replace(draft, notes=[why]))
        _publish(folder, place)
    except (SharedLLMError, OSError) as error:
        return f"Nothing was kept of it ({error})."
    return f"What there is of it was kept in {place}."


def _publish(folder: Path, target: Path) -> None:
    """Put a finished folder in the place of an earlier one."""
    if target.exists():
        old = folder.with_name(f"{folder.name}.old")
        target.rename(old)
        folder.rename(target)
        shutil.rmtree(old)
    else:
        folder.rename(target)


@contextlib.contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that is gone afterwards, unless it was published."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        folder.chmod(0o755)
    except OSError as error:
        raise RunFailed(
            f"A run needs a folder in {target.parent}, and there is none: {error.strerror}."
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _log_tail(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-6:]
    except OSError:
        return []
