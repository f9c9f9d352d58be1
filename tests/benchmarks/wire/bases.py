"""The loss of the bases on the same texts: those that ship, `30m` where it is trained, and SmolLM2-135M.

*Covered*: bits per byte, which different tokenizers share. *Not covered*: whether a base has read the texts,
as SmolLM2 surely has; more than the first 2,000 bytes of a few held-out documents of each base domain.
"""

from __future__ import annotations

from sharedllm import store
from sharedllm.cli.exporting import losses

__all__ = ["measure"]

_NAMES = {"toy": "toy", "toy-ternary": "ternary", "30m": "30m", "smollm2-135m": "SmolLM2"}


def measure(quick: bool = False) -> list[str]:
    """Lines of a table: bits per byte by domain and base, then each base's bytes."""
    present = {known.name for known in store.names() if known.present}
    chosen = list(_NAMES)[: 2 if quick else None]
    models = {_NAMES[name]: store.load(name) for name in chosen if name in present}
    table = losses(models, 1 if quick else 4, lambda *_: None)
    n_bytes = "".join(f"{model.manifest.sizes['weights'] / 1e6:>8.2f}MB" for model in models.values())
    return [*table, f"{'bytes':<14}{n_bytes}"]
