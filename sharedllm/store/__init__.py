"""Weights at rest: content-addressed blobs, packages fetched by hash, and a name that becomes a live model.

What must not happen here: training, sampling, or executing anything that was downloaded. Everything written
here is written atomically, and everything read is checked against a hash or a declared size first.

Bets that rest on this room: all of the ``135m`` regime, through ``load``; each cached fit, through
``cached``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sharedllm.store.blobs import Blobs
from sharedllm.store.cache import cached, canonical_json, home, sha256_of
from sharedllm.store.collection import Collected, collect
from sharedllm.store.packages import Progress

if TYPE_CHECKING:
    from sharedllm.store.conversion import (
        Loaded,
        keep_model,
        opened_ends,
        opened_span,
        opened_ternary,
        opened_tokenizer,
    )
    from sharedllm.store.manifest import Manifest
    from sharedllm.store.ternary.keeping import keep_ternary
    from sharedllm.store.zoo import (
        Known,
        enter,
        export,
        load,
        names,
        resolve,
        save,
        verify,
        with_weights,
    )

__all__ = [
    "Blobs",
    "Collected",
    "Known",
    "Loaded",
    "Manifest",
    "Progress",
    "cached",
    "canonical_json",
    "collect",
    "enter",
    "export",
    "home",
    "keep_model",
    "keep_ternary",
    "load",
    "names",
    "opened_ends",
    "opened_span",
    "opened_ternary",
    "opened_tokenizer",
    "resolve",
    "save",
    "sha256_of",
    "verify",
    "with_weights",
]

# torch takes a second to import, and whoever only hashes, caches or fetches needs none of it
_WITH_TORCH = {
    "Loaded": "conversion",
    "keep_model": "conversion",
    "keep_ternary": "ternary.keeping",
    "Manifest": "manifest",
    "opened_ends": "conversion",
    "opened_span": "conversion",
    "opened_ternary": "conversion",
    "opened_tokenizer": "conversion",
}


def __getattr__(name: str) -> Any:
    """Import the modules that need torch when one of their names is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WITH_TORCH.get(name, 'zoo')}"), name)
