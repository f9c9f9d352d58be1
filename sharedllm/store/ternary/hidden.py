"""Which weights of a model become ternary: its hidden matrices; not its ends, its router, nor its gains.

The embedding and the head decide which word is meant, and rounding them so coarsely costs more than anywhere
else; a router is a thousandth of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sharedllm.store.ternary.rounding import Scale, exact, ternarise, two_planes
from sharedllm.store.ternary.tensors import TernaryTensor

__all__ = ["exactly", "is_hidden", "rounded"]


def is_hidden(name: str) -> bool:
    """Say whether the weight of this name is a matrix, or a stack of them, inside a block."""
    plain = name.endswith(("norm.weight", "router.weight"))
    return name.startswith("blocks.") and not plain


def rounded(
    weights: Mapping[str, Tensor], *, planes: int = 1, scale: Scale = "optimal", group: int | None = None
) -> dict[str, Tensor | TernaryTensor]:
    """A model's state with each hidden matrix rounded to one or two planes of trits; see ``ternarise``.

    Raises what ``ternarise`` raises.
    """
    kept: dict[str, Tensor | TernaryTensor] = {}
    for name, weight in weights.items():
        if not is_hidden(name):
            kept[name] = weight
        elif planes == 1:
            kept[name] = TernaryTensor.of(ternarise(weight, scale=scale, group=group))
        else:
            kept[name] = TernaryTensor.of(*two_planes(weight, scale=scale, group=group))
    return kept


def exactly(weights: Mapping[str, Tensor], *, group: int | None = None) -> dict[str, Tensor | TernaryTensor]:
    """A model's state whose hidden matrices are ternary already: what is restored are the same bits.

    Raises ``BadModelFile`` if they are not, as ``exact`` says.
    """
    return {
        name: TernaryTensor.of(exact(weight, group=group)) if is_hidden(name) else weight
        for name, weight in weights.items()
    }
