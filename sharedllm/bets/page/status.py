"""The status page: what ran where, how long it took, and with which versions."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from sharedllm.bets.index import Entry
from sharedllm.bets.markup import badge, code, table
from sharedllm.bets.page.provenance import duration, size
from sharedllm.bets.result import Hardware

__all__ = ["status_page"]


def status_page(entries: Sequence[Entry]) -> Markup:
    """Return the recorded runs as a table, or a sentence where there are none."""
    runs = [(entry, regime, result) for entry in entries for regime, result in entry.results.items()]
    if not runs:
        return Markup("<p>No run has been recorded yet.</p>")
    rows = [
        (
            Markup('<a href="bets/{}.html">{}</a>').format(entry.bet.folder.name, entry.bet.id),
            regime,
            badge(result.verdict),
            result.fate,
            Markup('<span class="nowrap">{}</span>').format(result.timing.started_utc[:10]),
            duration(result.timing.wall_s),
            size(result.timing.peak_rss_bytes),
            _machine(result.hardware),
            f"Python {result.environment.python}, torch {result.environment.torch or '–'}",
            code((result.code.commit or "none")[:10]),
        )
        for entry, regime, result in runs
    ]
    columns = ("Bet", "Regime", "Verdict", "Fate", "Date", "Took", "Memory", "Machine", "Versions", "Commit")
    return table("Recorded runs, from their result files", columns, rows, kind="status")


def _machine(hardware: Hardware) -> str:
    return f"{hardware.cpu}, {hardware.cores} cores, {hardware.accelerator or 'no accelerator'}"
