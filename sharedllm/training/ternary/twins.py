"""Two bases that differ in nothing but their weights' precision, and a base that really is ternary: checks.

*Covered*: recipe, seed, text and tokens as the manifests tell them; every row of every hidden matrix.
*Not covered*: a manifest that was written by hand; machines, whose sums differ in the last bits.
"""

from __future__ import annotations

from sharedllm.model import Transformer
from sharedllm.store import Manifest
from sharedllm.training.optimizer import is_hidden

__all__ = ["rows_not_ternary", "twin_differences"]

_OWN = {"name", "lr", "adamw_lr", "weights", "scale", "per"}  # learning rates are swept for each
_SAME = ("seed", "text_sha256", "tokens")


def twin_differences(one: Manifest, other: Manifest) -> list[str]:
    """Name what makes two bases no twins: fields of recipe and provenance, tokenizer or shape that differ."""
    recipes = [manifest.provenance.get("recipe", {}) for manifest in (one, other)]
    fields = {*recipes[0], *recipes[1]} - _OWN
    differing = sorted(field for field in fields if recipes[0].get(field) != recipes[1].get(field))
    differing += [key for key in _SAME if one.provenance.get(key) != other.provenance.get(key)]
    if one.tokenizer_sha256 != other.tokenizer_sha256:
        differing.append("tokenizer")
    return differing + (["config"] if one.config != other.config else [])


def rows_not_ternary(model: Transformer) -> int:
    """Count the rows of hidden matrices that hold more than one magnitude beside zero."""
    count = 0
    for name, weight in model.named_parameters():
        if is_hidden(name, weight):
            rows_RI = weight.detach().abs().flatten(0, -2)
            large_R1 = rows_RI.amax(-1, keepdim=True)
            count += int(((rows_RI != 0) & (rows_RI != large_R1)).any(-1).sum())
    return count
