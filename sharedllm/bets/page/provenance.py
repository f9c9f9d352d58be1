"""Where numbers come from, and whether what ran is what was registered."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from sharedllm.bets.criteria import quantity
from sharedllm.bets.index import Entry
from sharedllm.bets.markup import code, fenced, markdown, table
from sharedllm.bets.registration import Registration
from sharedllm.bets.result import Result

__all__ = ["difference", "duration", "provenance", "size"]


def provenance(entry: Entry) -> Iterator[str]:
    """Return one table with a column per regime."""
    if not entry.results:
        yield "Nothing has run, so there is nothing to trace."
        return
    regimes = list(entry.results)
    columns = [_facts(result) for result in entry.results.values()]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    caption = "Who ran what, on which machine"
    yield _raw(table(caption, ("", *regimes), rows, kind="provenance"))


def _raw(body: Markup) -> str:
    return fenced("{raw} html", str(body))


def _facts(result: Result) -> dict[str, object]:
    ran, on, took = result.code, result.hardware, result.timing
    seeds = result.parameters.get("seeds", result.parameters.get("seed", "–"))
    reused = f" ({took.checkpoints_reused} parts from earlier checkpoints)" if took.checkpoints_reused else ""
    return {
        "Fate": result.fate,
        "Started": took.started_utc,
        "Took": duration(took.wall_s) + reused,
        "Peak memory": size(took.peak_rss_bytes),
        "Seeds": ", ".join(map(str, seeds if isinstance(seeds, list) else [seeds])),
        "Processor": f"{on.cpu}, {on.cores} cores, {size(on.memory_bytes)}",
        "Accelerator": on.accelerator or "none",
        "Software": f"Python {result.environment.python}, torch {result.environment.torch or '–'}",
        "System": result.environment.os,
        "Commit": code((ran.commit or "none")[:12]),
        "Uncommitted changes": "yes" if ran.dirty else "no",
        "Registration": code(result.registration_sha256[:16]),
        "Package": code(ran.package_sha256[:16]),
        "Notebook": code(ran.notebook_sha256[:16]),
        "Pinned versions": code((result.environment.lock_sha256 or "none")[:16]),
    }


def difference(entry: Entry) -> Iterator[str]:
    """Compare registration and run, and say “identical” in words where they are."""
    yield _raw(_hashes(entry))
    if not entry.results:
        yield "Nothing has run yet, so there is nothing to compare."
    for regime, result in entry.results.items():
        rows = list(_differences(entry.bet.registration, regime, result))
        where = markdown(f"In the regime {regime}")
        if rows:
            yield f"{where}, the run **differs** from the registration:"
            caption = f"Registered and run, regime {regime}"
            yield _raw(table(caption, ("What", "Registered", "Ran"), rows, kind="provenance"))
        else:
            yield f"{where}, registration, parameters, controls and criteria are **identical**."


def _hashes(entry: Entry) -> Markup:
    """Return the hash of the registration everywhere that it was written down, with its date."""
    rows: list[tuple[object, ...]] = [("On this page", "–", code(entry.bet.registration.sha256))]
    rows += [
        (f"Ledger, line {e.n}", e.at_utc[:10], code(e.registration_sha256))
        for e in entry.events
        if e.event == "registered"
    ]
    rows += [
        (f"Run in {regime}", result.timing.started_utc[:10], code(result.registration_sha256))
        for regime, result in entry.results.items()
    ]
    return table("SHA-256 of the registration", ("Where", "Date", "Hash"), rows, kind="provenance")


def _differences(registration: Registration, regime: str, result: Result) -> Iterator[tuple[str, str, str]]:
    """Yield every difference, recomputed from both sides rather than taken from the result's own list."""
    if registration.sha256 != result.registration_sha256:
        yield "hash of the registration", registration.sha256, result.registration_sha256
    if regime not in registration.regimes:
        yield "regime", ", ".join(registration.regimes), regime
        return
    planned = dict(registration.plan(regime, "full").parameters)
    for name in sorted(planned.keys() | result.parameters.keys() - {"regime", "tier"}):
        if planned.get(name) != result.parameters.get(name):
            yield f"parameter {name}", str(planned.get(name, "–")), str(result.parameters.get(name, "–"))
    if result.tier != "full":
        yield "tier", "full", result.tier
    ours = {r.name: r.expression for r in (*registration.controls, *registration.criteria)}
    theirs = {r.name: r.rule for r in (*result.controls, *result.criteria)}
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            yield f"rule {name}", ours.get(name, "–"), theirs.get(name, "–")


def duration(seconds: float) -> str:
    """Return a run time for reading."""
    if seconds < 120:
        return quantity(round(seconds, 1), "s")
    short = seconds < 7200
    return quantity(round(seconds / (60 if short else 3600), 1), "min" if short else "h")


def size(n_bytes: int) -> str:
    """Return a size for reading."""
    large = n_bytes >= 2**30
    return quantity(round(n_bytes / 2 ** (30 if large else 20), 1), "GiB" if large else "MiB")
