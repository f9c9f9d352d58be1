"""A base whose weights were rounded after training, and the bytes that it then takes.

| form | each weight of a projection | scale, fp16 | bits with scale, on a row of 576 |
|---|---|---|---:|
| ``ternary`` | −1, 0 or 1: zero below 0.75 of the row's mean magnitude | one per row | 1.64 |
| ``int4`` | −7 … 7 | one per 32 weights | 4.50 |
| ``int8`` | −127 … 127 | one per row | 8.03 |

A row is what makes one output. Embedding and head are int8 in every form, since they suffer most (ternary
runtimes keep more bits of them, too); gains and routers stay fp32. Ternary is Li et al. 1605.04711 §2.3, five
trits to a byte.

*Covered*: rounding to the nearest, of dense projections and stacked experts. *Not covered*: a base that is
trained ternary, calibration on text, rounding of activations.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sharedllm.errors import BadRecipe
from sharedllm.model import Transformer
from sharedllm.store import Loaded

__all__ = ["FORMS", "Rounded", "round_weights", "rounded_base"]

FORMS = ("ternary", "int4", "int8")
_THRESHOLD = 0.75  # of the mean magnitude: 0.767 is best for normal weights
_GROUP = 32
_TRITS_PER_BYTE = 5
_SCALE_BYTES = 2
_LEAST = 2.0**-24  # of what fp16 can tell from zero
_TABLES = ("embed.weight", "head.weight")


@dataclass(frozen=True)
class Rounded:
    """A live base in fp32 that holds rounded weights alone, and the bytes that those take when packed."""

    base: Loaded
    n_bytes: int


def rounded_base(base: Loaded, form: str) -> Rounded:
    """Round a base's projections to ``form``; the given base stays as it is.

    Its manifest names the rounded weights by their own hash, so that adapters and losses of the two are never
    mixed up. Raises ``BadRecipe`` for a form that does not exist.
    """
    _check(form)
    weights: dict[str, Tensor] = {}
    n_bytes, digest = 0, hashlib.sha256(form.encode())
    for name, weight in base.model.state_dict().items():
        kept = "int8" if name in _TABLES else form
        if weight.ndim < 2 or name.endswith("router.weight"):
            weights[name], spent = weight, 4 * weight.numel()
        else:
            weights[name], spent = round_weights(weight, kept)
        n_bytes += spent
        digest.update(name.encode())
        digest.update(weights[name].contiguous().numpy().data)
    with torch.device("meta"):
        model = Transformer(base.model.config)
    model.load_state_dict(weights, assign=True)
    said = replace(base.manifest, name=f"{base.manifest.name}-{form}", weights_sha256=digest.hexdigest())
    return Rounded(Loaded(model.eval().requires_grad_(False), base.tokenizer, said), n_bytes)


def round_weights(weight: Tensor, form: str) -> tuple[Tensor, int]:
    """Round ``weight[…, inputs]`` to ``form`` and back to fp32; also give the bytes that it takes packed.

    Raises ``BadRecipe`` for a form that does not exist.
    """
    _check(form)
    inputs = weight.shape[-1]
    if form == "ternary":
        magnitude = weight.abs()
        large = magnitude > _THRESHOLD * magnitude.mean(-1, keepdim=True)
        scale = _half((magnitude * large).sum(-1, keepdim=True) / large.sum(-1, keepdim=True).clamp_min(1))
        rows = weight.numel() // inputs
        return weight.sign() * large * scale, rows * (math.ceil(inputs / _TRITS_PER_BYTE) + _SCALE_BYTES)
    group = _GROUP if form == "int4" and inputs % _GROUP == 0 else inputs
    steps, bits = (7, 4) if form == "int4" else (127, 8)
    grouped = weight.reshape(*weight.shape[:-1], inputs // group, group)
    scale = _half(grouped.abs().amax(-1, keepdim=True) / steps)
    nearest = (grouped / scale).round().clamp(-steps, steps) * scale
    return nearest.view(weight.shape), weight.numel() // group * (math.ceil(group * bits / 8) + _SCALE_BYTES)


def _half(scale: Tensor) -> Tensor:
    """Keep a scale as fp16 does; an all-zero group gets the least that is not zero."""
    return scale.half().float().clamp_min(_LEAST)


def _check(form: str) -> None:
    if form not in FORMS:
        raise BadRecipe(f"Weights can't be rounded to {form!r}; expected one of: {', '.join(FORMS)}.")
