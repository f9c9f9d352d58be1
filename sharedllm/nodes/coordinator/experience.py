"""What was lived through with each worker: how fast it computed, and why it is not asked for a while.

Speeds are seconds per layer for one row, as the worker computed it (waiting excluded), smoothed; they replace
the estimate from the worker's memory bandwidth. A dead or frozen worker is banned for one lease, twice as
long each time it happens again, and a newer start lifts the ban; one that returned garbage is banned for ten
minutes and longer, and a restart does not lift that.

*Covered*: bans and speeds outlive a restart of the coordinator. *Not covered*: a primary that lies about the
workers of its own pipelines; it can slow others down for as long as a ban lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sqlalchemy import Engine, delete, insert, select, update

from sharedllm.nodes.coordinator.database import bans, speeds
from sharedllm.nodes.coordinator.registry import Node

__all__ = ["GARBAGE_BAN_S", "Experience"]

GARBAGE_BAN_S = 600.0
_LONGEST_DEAD_BAN_S = 600.0
_LONGEST_GARBAGE_BAN_S = 24 * 3_600.0
_FORGIVEN_AFTER_S = 600.0
_NEWEST = 0.3  # the weight of a new measurement beside all earlier ones


class Experience:
    """Measured speeds and bans, in the database. ``clock`` gives unix seconds."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float], lease_s: float) -> None:
        self._engine, self._clock, self._lease_s = engine, clock, lease_s

    def learn(self, model: str, measured: Mapping[str, float], *, at_once: str | None = None) -> None:
        """Take in seconds per layer by worker; ``at_once`` names one whose earlier speed no longer counts."""
        now = self._clock()
        with self._engine.begin() as connection:
            for worker, s_per_layer in sorted(measured.items()):
                here = (speeds.c.worker == worker) & (speeds.c.model == model)
                old = connection.execute(select(speeds.c.s_per_layer).where(here)).scalar_one_or_none()
                if old is None:
                    row = {"worker": worker, "model": model, "s_per_layer": s_per_layer, "at_s": now}
                    connection.execute(insert(speeds).values(row))
                    continue
                new = s_per_layer if worker == at_once else (1 - _NEWEST) * old + _NEWEST * s_per_layer
                connection.execute(update(speeds).where(here).values(s_per_layer=new, at_s=now))

    def measured(self, model: str) -> dict[str, float]:
        """Seconds per layer of ``model`` by worker, for those that ever computed it."""
        with self._engine.connect() as connection:
            chosen = select(speeds.c.worker, speeds.c.s_per_layer).where(speeds.c.model == model)
            return {row.worker: row.s_per_layer for row in connection.execute(chosen)}

    def ban(self, worker: str, kind: str, detail: str, started_s: float) -> float:
        """Ban a worker that was ``dead``, ``frozen`` or returned ``garbage``; returns until when.

        ``started_s`` is the start time that it last reported: a later one lifts a ban that is not for
        garbage.
        """
        now, garbage = self._clock(), kind == "garbage"
        first_s, longest_s = (
            (GARBAGE_BAN_S, _LONGEST_GARBAGE_BAN_S) if garbage else (self._lease_s, _LONGEST_DEAD_BAN_S)
        )
        with self._engine.begin() as connection:
            old = connection.execute(select(bans).where(bans.c.worker == worker)).first()
            if old is not None and old.kind == "garbage" and not garbage and old.until_s > now:
                return float(old.until_s)
            again = (
                old is not None
                and (old.kind == "garbage") == garbage
                and now < old.until_s + _FORGIVEN_AFTER_S
                and (garbage or old.started_s >= started_s)
            )
            # Within a ban that still holds, a second primary reports the same failure, not a new one
            same = again and old is not None and now < old.until_s
            strikes = (int(old.strikes) + (not same)) if again and old is not None else 1
            until_s = now + min(first_s * 2.0 ** min(strikes - 1, 20), longest_s)
            connection.execute(delete(bans).where(bans.c.worker == worker))
            row = {"kind": kind, "detail": detail, "until_s": until_s, "started_s": started_s}
            connection.execute(insert(bans).values(worker=worker, strikes=strikes, **row))
        return until_s

    def forgive(self, workers: Iterable[str]) -> None:
        """Forget the strikes of workers that were seen to work; a ban for garbage stays until it ends."""
        now, names = self._clock(), sorted(workers)
        over = (bans.c.kind != "garbage") | (bans.c.until_s <= now)
        with self._engine.begin() as connection:
            connection.execute(delete(bans).where(bans.c.worker.in_(names) & over))

    def banned(self, nodes: Iterable[Node]) -> dict[str, str]:
        """Why each banned worker among ``nodes`` is not asked, by id."""
        now = self._clock()
        with self._engine.connect() as connection:
            rows = {row.worker: row for row in connection.execute(select(bans).where(bans.c.until_s > now))}
        sentences = {}
        for node in nodes:
            row = rows.get(node.id)
            if row is None:
                continue
            newer = node.report is not None and node.report.started > row.started_s
            if newer and row.kind != "garbage":
                continue
            sentences[node.id] = (
                f"it was reported {_WORDS[row.kind]}, and is not asked for the next "
                f"{row.until_s - now:.0f} s" + (f" ({row.detail})" if row.detail else "")
            )
        return sentences


_WORDS = {"dead": "dead", "frozen": "frozen", "garbage": "to return garbage"}
