"""Bytes against loss, for every way that is known here to make a trained base small.

A row is a file: its bytes, with embeddings (int8 beside trits, int8 and int4), tokenizer and all; the bits of
a weight of its matrices with scales; and its bits per byte on held-out text, with the rise above the base and
its 95 % interval over documents. Below stand sizes alone: llama.cpp's TQ1_0 and TQ2_0 for the same matrices,
and what an ideal coder would make of the trits. The points are drawn into ``build/``.

*Covered*: schemes of ``training.calibrated``, at the effort that export spends; SmolLM2-135M's own Q4_1 file,
whose loss is the base's, since it is all there is of it. *Not covered*: losses of llama.cpp's formats, which
round to the nearest as ``rounded`` does.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from sharedllm import corpus, store
from sharedllm.bets import Series
from sharedllm.bets.calibration import Arm, HeldOut, by_scheme, held_out_texts, plain, stepped
from sharedllm.bets.figures import figure, svg
from sharedllm.store import Loaded
from sharedllm.store.ternary import TernaryTensor, is_hidden
from sharedllm.training.calibrated import SCHEMES, base_texts, quantise
from sharedllm.training.calibrated.recipes import TOKENS_PER_DOMAIN, effort_for

__all__ = ["measure"]

_FOLDER = Path("build")
_LLAMA_BITS = {"TQ1_0": 1.6875, "TQ2_0": 2.0625}
_WINDOW = 256


def measure(quick: bool = False) -> list[str]:
    """Lines of a table per base: forms by size with their loss, then sizes without one."""
    if quick:
        return _table("toy", ["rounded", "fed-back"], 1024, 200)
    return [*_table("toy", list(SCHEMES), 8192, 4000), "", *_table("smollm2-135m", list(SCHEMES), 2048, 4000)]


def _table(name: str, schemes: list[str], tokens: int, resamples: int) -> list[str]:
    base = store.load(name)
    texts, effort = base_texts(base.tokenizer, TOKENS_PER_DOMAIN), effort_for(base.model)
    arms = {"fp32": plain(base, "fp32"), "fp16": plain(base, "fp16")}
    arms |= {form: stepped(base, form) for form in ("int8", "int4")}
    arms |= {scheme: by_scheme(base, texts, scheme, effort, seed=0) for scheme in schemes}
    held_out = held_out_texts(base, corpus.BASE_DOMAINS, tokens, _WINDOW, resamples)
    lines = [
        f"{name}: {held_out.documents} held-out documents; asked: at most 2 bits each, and a rise of 0.5"
    ]
    lines += [f"{'form':<18}{'file MB':>9}{'bits each':>11}{'bits/byte':>11}{'rise':>8}  95 %"]
    losses: dict[str, float] = {}
    for form, arm in sorted(arms.items(), key=lambda item: -item[1].n_bytes):
        rise = held_out.rise(arm.model, base).mean
        losses[form] = _mean(held_out, arm.model)
        lines.append(
            f"{form:<18}{arm.n_bytes / 1e6:>9.2f}{arm.bits_per_weight:>11.3f}{losses[form]:>11.3f}"
            f"{rise.estimate:>8.3f}  {rise.low:.3f} … {rise.high:.3f}"
        )
    best = quantise(base, texts, schemes[1], effort)
    return [*lines, *_sizes(base, arms[schemes[1]], best.matrices()), f"drawn: {_draw(name, arms, losses)}"]


def _mean(held_out: HeldOut, model: Loaded) -> float:
    bits = held_out.bits(model)
    return sum(bits.values()) / len(bits)


def _sizes(base: Loaded, arm: Arm, matrices: dict[str, TernaryTensor]) -> list[str]:
    """Sizes without a loss: of llama.cpp's formats and an ideal coder, with the rest of our file around."""
    weights = sum(weight.numel() for name, weight in base.model.named_parameters() if is_hidden(name))
    around = arm.n_bytes - arm.bits_per_weight * weights / 8
    scales = sum(8 * matrix.scales.nbytes for matrix in matrices.values()) / weights
    entropy = sum(_entropy_bits(matrix) for matrix in matrices.values()) / weights
    sized = _LLAMA_BITS | {"ideal coder": entropy + scales}
    lines = [
        f"{what:<18}{(around + bits * weights / 8) / 1e6:>9.2f}{bits:>11.3f}" for what, bits in sized.items()
    ]
    gguf = base.manifest.provenance.get("gguf_sha256")
    path = store.Blobs().path(str(gguf)) if gguf else None
    if path is not None and path.is_file():
        lines.append(f"{'Q4_1 (its own)':<18}{path.stat().st_size / 1e6:>9.2f}")
    return lines


def _entropy_bits(matrix: TernaryTensor) -> float:
    """Bits of all trits of a matrix at the entropy of their shares, plane by plane."""
    total = 0.0
    for trits in matrix.unpacked():
        shares = np.bincount(trits.flatten().numpy() + 1, minlength=3) / trits.numel()
        total -= trits.numel() * math.fsum(share * math.log2(share) for share in shares if share)
    return total


def _draw(name: str, arms: dict[str, Arm], losses: dict[str, float]) -> Path:
    kinds = {"trits": set(SCHEMES), "others": set(arms) - set(SCHEMES)}
    series = Series(
        name="pareto",
        kind="points",
        title=f"Bytes of {name} against its loss",
        takeaway="The lower left is better.",
        alt="One point per form: megabytes of its file against held-out bits per byte.",
        x=[arms[form].n_bytes / 1e6 for form in losses],
        y={
            kind: [bits if form in group else None for form, bits in losses.items()]
            for kind, group in kinds.items()
        },
        x_label="file (MB)",
        y_label="bits per byte",
    )
    _FOLDER.mkdir(exist_ok=True)
    drawn = _FOLDER / f"wire-pareto-{name}.svg"
    drawn.write_text(str(svg(figure(series))))
    return drawn
