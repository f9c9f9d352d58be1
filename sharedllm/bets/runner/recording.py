"""What a notebook calls: ``record`` its numbers, ``checkpoint`` a cell of its grid, show ``progress``.

The record travels as one output of the notebook (MIME ``application/vnd.sharedllm.record+json``), so that the
same notebook works under the runner, under plain papermill and in JupyterLab.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sharedllm.bets.criteria import quantity
from sharedllm.bets.provenance import package_sha256
from sharedllm.bets.result import Series
from sharedllm.errors import BadBet
from sharedllm.store import cached, canonical_json

if TYPE_CHECKING:
    from sharedllm.bets.evidence import Interval

__all__ = ["PROGRESS_MIME", "RECORD_MIME", "SCOPE", "bars", "checkpoint", "intervals", "progress", "record"]

RECORD_MIME = "application/vnd.sharedllm.record+json"
PROGRESS_MIME = "application/vnd.sharedllm.progress+json"
SCOPE = "SHAREDLLM_RUN_SCOPE"  # set by the runner: hash of package, notebook, registration, python and torch
MAX_RECORD_BYTES = 120_000
_REPORT_EVERY_S = 1.0
_VALUE_FILE = "value.json"

T = TypeVar("T")

_checkpoints = {"computed": 0, "reused": 0}


def record(
    metrics: Mapping[str, Any],
    *,
    per_seed: Mapping[str, Any] | None = None,
    series: Iterable[Series | Mapping[str, Any]] = (),
) -> None:
    """Report a run's numbers; the last cell of every bet calls this once.

    ``metrics``: name to a finite number, true/false, an explicit None, or lists and tables of those (arrays
    and tensors are unpacked). ``per_seed``: values by seed of metrics of the same name. ``series``: one per
    figure. Raises ``BadBet`` for NaN, infinity, a text, an odd name, or a record too large to keep.
    """
    figures = [one if isinstance(one, Series) else _series(one) for one in series]
    payload: dict[str, Any] = {
        "metrics": _numbers(metrics, "metrics"),
        "per_seed": _numbers(per_seed or {}, "per_seed"),
        "series": [plain(asdict(figure), f"series {figure.name}") for figure in figures],
        "checkpoints": dict(_checkpoints),
    }
    size_bytes = len(canonical_json(payload))
    if size_bytes > MAX_RECORD_BYTES:
        raise BadBet(
            f"This record has {size_bytes:,} bytes; one holds {MAX_RECORD_BYTES:,}. Record summaries, "
            "and thin "
            "out the series: a figure shows a few hundred points at most."
        )
    rows = [f"{name:<32} {quantity(value)}" for name, value in payload["metrics"].items()]
    _show(RECORD_MIME, payload, "\n".join(["Recorded:", *rows]))


def intervals(table: Mapping[str, Mapping[str, Interval]], **texts: Any) -> Series:
    """Make a figure of ``table[curve][x]``, every curve over the same ``x``; ``texts`` as in ``Series``."""
    x: list[float | str] = list(next(iter(table.values())))

    def column(end: str) -> Any:
        return {curve: [float(getattr(row[at], end)) for at in row] for curve, row in table.items()}

    return Series(kind="interval", x=x, y=column("estimate"), low=column("low"), high=column("high"), **texts)


def bars(table: Mapping[str, Mapping[str, float]], curves: Iterable[str], **texts: Any) -> Series:
    """Make a figure of bars, ``table[x][curve]``; ``texts`` as in ``Series``."""
    y: Any = {curve: [float(row[curve]) for row in table.values()] for curve in curves}
    return Series(kind="bar", x=list(table), y=y, **texts)


def checkpoint(name: str, key: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
    """Return ``compute()``, or what it returned when this bet last computed ``name`` with this ``key``.

    The value is plain JSON (the same whether fresh or resumed). It is found again only by the same package
    source, notebook and registration, so that a canonical run never reuses what other code computed. Raises
    ``BadBet`` for a value or key that is not JSON.
    """
    scope = os.environ.get(SCOPE) or f"interactive-{package_sha256()}"
    full_key = {"scope": scope, "name": name, "key": plain(dict(key), "key")}
    fresh = False

    def write(folder: Path) -> None:
        nonlocal fresh
        fresh = True
        (folder / _VALUE_FILE).write_bytes(canonical_json(plain(compute(), name)))

    folder = cached("checkpoint", full_key, write)
    _checkpoints["computed" if fresh else "reused"] += 1
    if not fresh:
        _say(name, "resumed from its checkpoint")
    return json.loads((folder / _VALUE_FILE).read_bytes())


def progress(items: Iterable[T], name: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` and show, once a second at most, how many are done, how fast, and how long is left."""
    if total is None:
        total = len(items) if isinstance(items, Sized) else None
    started_s, last_s, handle = time.monotonic(), -math.inf, None
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        now_s = time.monotonic()
        if now_s - last_s >= _REPORT_EVERY_S or done == total:
            last_s = now_s
            handle = _report(name, done, total, now_s - started_s, handle)


def _report(name: str, done: int, total: int | None, elapsed_s: float, handle: Any) -> Any:
    rate_per_s = done / max(elapsed_s, 1e-9)
    remaining_s = None if total is None else (total - done) / rate_per_s
    line = f"{name}: {done}{'' if total is None else f' of {total}'}, {quantity(rate_per_s, 'per s', 3)}"
    if remaining_s is not None:
        line += f", {remaining_s:,.0f} s left"
    return _show(PROGRESS_MIME, {"line": line}, line, handle)


def _say(name: str, what: str) -> None:
    _show(PROGRESS_MIME, {"line": f"{name}: {what}"}, f"{name}: {what}")


def _show(mime: str, payload: Any, text: str, handle: Any = None) -> Any:
    """Display under IPython (updating ``handle`` in place if there is one), print elsewhere."""
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        print(text, flush=True)
        return None
    bundle = {mime: payload, "text/plain": text}
    if handle is not None:
        handle.update(bundle, raw=True)
        return handle
    from IPython.display import display  # the kernel has it; outside one it is not needed

    return display(bundle, raw=True, display_id=mime == PROGRESS_MIME or None)  # type: ignore[no-untyped-call]


def plain(value: Any, where: str) -> Any:
    """Return ``value`` as plain JSON; raises ``BadBet`` for NaN, infinity and what JSON has no word for."""
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        value = value.tolist()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if abs(value) >= 2**63:
            raise BadBet(f"{where} is an integer of more than 64 bits.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadBet(f"{where} is {value}; record a finite number, or None and why it has none.")
        return float(value)
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{n}]") for n, item in enumerate(value)]
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise BadBet(f"{where} has the key {odd[0]!r}; keys are text.")
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    raise BadBet(f"{where} is a {type(value).__name__}, which is no number, truth, list or table.")


def _numbers(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    table: dict[str, Any] = plain(dict(given), where)
    for name, value in table.items():
        if not name.isidentifier() or name.startswith("_") or not name.isascii():
            raise BadBet(
                f"{name!r} can't name a metric: use lower_case with its unit, such as 'residual_nats'."
            )
        _refuse_text(value, f"{where}.{name}")
    return table


def _refuse_text(value: Any, where: str) -> None:
    if isinstance(value, str):
        raise BadBet(f"{where} is the text {value[:40]!r}; a record holds numbers, rules judge them.")
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    for item in inner:
        _refuse_text(item, where)


def _series(given: Mapping[str, Any]) -> Series:
    try:
        return Series(**given)
    except TypeError as error:
        raise BadBet(f"A series does not fit: {str(error).replace('Series.__init__() ', '')}.") from None
