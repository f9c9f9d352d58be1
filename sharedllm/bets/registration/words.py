"""Strictness in one place: a name is known or refused with a guess, a value fits its type or is refused."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

from sharedllm.errors import BadBet

__all__ = ["fits", "known", "named_keys"]

_SCALARS: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
_MAX_INT = 2**63


def known(name: str, names: Iterable[str], what: str) -> None:
    """Raise ``BadBet`` unless ``name`` is one of ``names``, with a list of them and a guess."""
    names = sorted(names)
    if name in names:
        return
    close = difflib.get_close_matches(name, names, n=1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(names) if names else "none"
    raise BadBet(f"There is no {what} {name!r}.{guess} Known: {listed}.")


def named_keys(
    table: Any, where: str, required: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, Any]:
    """Return ``table`` after checking that its keys are all of ``required`` and some of ``optional``."""
    if not isinstance(table, dict):
        raise BadBet(f"{where} must be a table, not {table!r}.")
    required = tuple(required)
    for key in table:
        known(key, (*required, *optional), f"key in {where} named")
    missing = [key for key in required if key not in table]
    if missing:
        raise BadBet(f"{where} lacks {', '.join(missing)}.")
    return table


def fits(value: Any, wanted: str, what: str) -> Any:
    """Return ``value`` if it is of type ``wanted`` (an int may stand for a float); raises ``BadBet``."""
    if wanted.startswith("list["):
        if not isinstance(value, list):
            raise BadBet(f"{what} must be a {wanted}, not {value!r}.")
        return [fits(item, wanted[5:-1], f"{what}, item {index + 1},") for index, item in enumerate(value)]
    if wanted == "float" and type(value) is int and abs(value) < _MAX_INT:
        value = float(value)
    if type(value) is not _SCALARS[wanted]:
        raise BadBet(f"{what} must be of type {wanted}, not {value!r} ({type(value).__name__}).")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadBet(f"{what} must be finite, not {value!r}.")
    if isinstance(value, int) and abs(value) >= _MAX_INT:
        raise BadBet(f"{what} does not fit 64 bits.")
    return value
