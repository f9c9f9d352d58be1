"""Weights at rest: content-addressed blobs, packages fetched by hash, and a name that becomes a live model.

What must not happen here: training, sampling, or executing anything that was downloaded. Everything written
here is written atomically, and everything read is checked against a hash or a declared size first.

Bets that rest on this room: all of the ``135m`` regime, through ``load``; each cached fit, through
``cached``.
"""

from __future__ import annotations

from sharedllm.store.cache import cached, canonical_json, home, sha256_of
from sharedllm.store.packages import Progress

__all__ = ["Progress", "cached", "canonical_json", "home", "sha256_of"]
