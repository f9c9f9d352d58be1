"""The life of a specialist outside the store: trained from a base and a domain, offered, fetched.

It stands above the rooms of adapters and of training, because its recipe needs one or the other, and beside
the coordinator, because a federation's nodes fetch what they lack from it.

What must not happen here: training on a validation or test split, believing a manifest that ``store`` did not
verify, importing torch where only manifests and bytes are moved (``exchange``).

Bets that rest on it: none; b001 rests on ``store.specialists``, which it publishes into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sharedllm.nodes.specialists.exchange import fetch, fetch_model, listing, offer, withdraw

if TYPE_CHECKING:
    from sharedllm.nodes.specialists.recipe import ADAPTER_BUDGET, trained

__all__ = ["ADAPTER_BUDGET", "fetch", "fetch_model", "listing", "offer", "trained", "withdraw"]


def __getattr__(name: str) -> Any:
    """Load what trains when it is asked for (PEP 562)."""
    if name not in ("ADAPTER_BUDGET", "trained"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sharedllm.nodes.specialists import recipe

    return getattr(recipe, name)
