"""Bytes and durations as people write them (``10GB``, ``1h30m``), and back.

Decimal prefixes are powers of 1,000 and binary ones (``GiB``) powers of 1,024, as IEC 80000-13 has them.
"""

from __future__ import annotations

import math
import re

from sharedllm.nodes.operations.errors import BadSetting

__all__ = ["format_bytes", "format_duration", "parse_bytes", "parse_duration"]

_PREFIXES = "kMGTP"
_BYTES = re.compile(r"(\d{1,18}(?:\.\d{1,9})?) ?(?:([kmgtp]?)b?|([kmgtp])ib?)", re.IGNORECASE)
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,9})?) ?(ms|s|min|m|h|d) ?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_BYTES = 10**18
_MAX_S = 10 * 365 * 86400.0


def parse_bytes(text: str) -> int:
    """Read ``512``, ``300 MB``, ``10GB``, ``1.5GiB`` or ``2g`` as bytes; raises ``BadSetting``."""
    found = _BYTES.fullmatch(str(text).strip())
    if found is not None:
        number, decimal, binary = found.groups()
        prefix = (binary or decimal or "").lower()
        exponent = _PREFIXES.lower().index(prefix) + 1 if prefix else 0
        unit: int = (1024 if binary else 1000) ** exponent
        n_bytes = round(float(number) * unit) if "." in number else int(number) * unit
        if n_bytes <= _MAX_BYTES:
            return n_bytes
    raise BadSetting(
        f"{str(text)[:40]!r} is no number of bytes; write one such as 512MB, 10GB or 1.5GiB (up to 1000PB)."
    )


def parse_duration(text: str) -> float:
    """Read ``90``, ``90s``, ``1h``, ``1h30m``, ``2d`` or ``500ms`` as seconds; raises ``BadSetting``."""
    squeezed = str(text).strip()
    if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", squeezed):
        squeezed += "s"
    parts = list(_PART.finditer(squeezed))
    if parts and "".join(part.group() for part in parts) == squeezed:
        seconds = math.fsum(float(part.group(1)) * _UNIT_S[part.group(2)] for part in parts)
        if seconds <= _MAX_S:
            return seconds
    raise BadSetting(
        f"{str(text)[:40]!r} is no duration; write one such as 90s, 10min, 1h30m or 2d (up to ten years)."
    )


def format_bytes(n_bytes: float) -> str:
    """Write bytes with three significant digits and a decimal prefix: ``1.21 GB``."""
    value, prefix = float(n_bytes), ""
    for larger in _PREFIXES:
        if abs(value) < 999.5:
            break
        value, prefix = value / 1000, larger
    if not prefix:
        return f"{value:.0f} B"
    digits = max(0, 2 - int(math.log10(max(abs(value), 1.0))))
    return f"{value:.{digits}f} {prefix}B"


def format_duration(seconds: float) -> str:
    """Write seconds in the unit in which they read best: ``12 ms``, ``4.5 s``, ``3 min``, ``5 d``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
