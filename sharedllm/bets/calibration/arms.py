"""One base in several forms, each live as it comes out of its file, with the bytes that it takes.

| arm | matrices | embedding and head |
|---|---|---|
| ``plain`` | fp32 or fp16, which say the same of a base that is kept as fp16 | as matrices |
| ``stepped`` | int8 or int4, rounded to the nearest | int8 |
| ``by_scheme`` | trits, by a scheme of ``training.calibrated`` | int8 |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sharedllm.bets.personal import rounded_base
from sharedllm.store import Loaded, Progress, keep_ternary
from sharedllm.store.conversion import opened
from sharedllm.store.ternary import is_hidden
from sharedllm.training.calibrated import Effort, Quantised, Texts, quantise

__all__ = ["Arm", "by_scheme", "plain", "stepped"]

_BYTES = {"fp32": 4, "fp16": 2}


@dataclass(frozen=True)
class Arm:
    """A live model, the bytes of everything it takes at rest, and the bits of a weight of its matrices.

    ``validation_nats``: of what was learnt, how far from the full model it was after how many steps.
    """

    model: Loaded
    n_bytes: int
    bits_per_weight: float
    validation_nats: tuple[tuple[int, float], ...] = ()


def plain(base: Loaded, form: Literal["fp32", "fp16"]) -> Arm:
    """The base itself, and what it takes in a form that loses nothing here."""
    size = _BYTES[form]
    return Arm(base, size * sum(weight.numel() for weight in base.model.parameters()), 8.0 * size)


def stepped(base: Loaded, form: Literal["int8", "int4"]) -> Arm:
    """The base with its matrices rounded to 255 or 15 values; see ``bets.personal.rounding``."""
    made = rounded_base(base, form)
    matrices = [weight for name, weight in base.model.named_parameters() if is_hidden(name)]
    spent = made.n_bytes - _around(base)
    return Arm(made.base, made.n_bytes, 8 * spent / sum(weight.numel() for weight in matrices))


def by_scheme(
    base: Loaded,
    texts: Texts,
    scheme: str,
    effort: Effort,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Arm:
    """The base as trits, as a ternary file gives it back. Raises what ``quantise`` raises."""
    made: Quantised = quantise(base, texts, scheme, effort, seed=seed, progress=progress)
    manifest = keep_ternary(
        f"{base.manifest.name}-{scheme}",
        base.manifest.config,
        base.tokenizer,
        made.weights,
        licence=base.manifest.licence,
        provenance={"base_sha256": base.manifest.weights_sha256, "scheme": scheme},
    )
    curve = tuple((int(step), float(nats)) for step, nats in made.report.get("validation_nats", ()))
    return Arm(opened(manifest), manifest.sizes["weights"], made.bits_per_weight, curve)


def _around(base: Loaded) -> int:
    """Bytes that ``rounded_base`` spends on what is no matrix of a block."""
    n_bytes = 0
    for name, weight in base.model.named_parameters():
        if name in ("embed.weight", "head.weight"):
            n_bytes += weight.numel() + 2 * len(weight)
        elif weight.ndim < 2 or name.endswith("router.weight"):
            n_bytes += 4 * weight.numel()
    return n_bytes
