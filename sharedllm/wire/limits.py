"""How large anything on the wire may be; every length is compared with these before memory is taken."""

from __future__ import annotations

import dataclasses

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """Ceilings of one connection. ``meta_bytes``, ``body_bytes``: of one frame; ``rows``: of one step.

    A row is one position's hidden state. The body's ceiling lets a step of ``rows`` rows pass at a width of
    8,192 in fp32.
    """

    meta_bytes: int = 64 << 10
    body_bytes: int = 64 << 20
    rows: int = 2048
    segments: int = 1024
    hops: int = 256
    outbox_bytes: int = 256 << 20


DEFAULT_LIMITS = Limits()
