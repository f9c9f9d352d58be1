"""What a ternary file spends its bytes on, part by part."""

from __future__ import annotations

import dataclasses
import math

from sharedllm.store.ternary.file import Opened
from sharedllm.store.ternary.hidden import is_hidden

__all__ = ["Part", "inventory"]


@dataclasses.dataclass(frozen=True)
class Part:
    """``n_bytes`` of a file, and how many ``weights`` of the model they describe (0: none of its own)."""

    name: str
    n_bytes: int
    weights: int

    @property
    def bits(self) -> float | None:
        """The bits that each weight takes; None where there is none."""
        return 8 * self.n_bytes / self.weights if self.weights else None


def inventory(opened: Opened) -> list[Part]:
    """The parts of a file, which add up to its length: hidden weights, their scales, and all else."""
    sizes = opened.sizes()
    bytes_of, weights_of = dict.fromkeys(_PARTS, 0), dict.fromkeys(_PARTS, 0)
    for name, shape in opened.shapes.items():
        part = _part(name)
        weights_of[part] += math.prod(shape)
        for tensor in opened.names(name):
            scales = part == "trits" and tensor.endswith(".scales")
            bytes_of["scales" if scales else part] += sizes[tensor]
    bytes_of["tokenizer"] = sizes["tokenizer"]
    bytes_of["header"] = opened.path.stat().st_size - sum(sizes.values())
    return [Part(name, bytes_of[name], weights_of[name]) for name in _PARTS if bytes_of[name]]


_PARTS = ("trits", "scales", "embedding", "router", "gains", "tokenizer", "header")


def _part(name: str) -> str:
    if is_hidden(name):
        return "trits"
    if name.endswith("router.weight"):
        return "router"
    return "embedding" if name in ("embed.weight", "head.weight") else "gains"
