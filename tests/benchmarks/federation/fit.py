"""A personal fit of 50 kB of one author's text: seconds, the floor beside them, and what rounding costs.

The floor is arithmetic alone: multiplications and additions of every product that was made (a forward pass
costs two per weight, the gradient of hidden states two more, frozen weights none) at the rate at which this
machine multiplies matrices of the base's own shapes, best of many. Reading, splitting, tokenising, attention,
norms and the vocabulary's softmax are in the seconds and not in the floor.

*Covered*: search, fit and judging, as ``sharedllm adapter fit`` does them, on the pretrained base and on the
shape of ``30m`` with random weights (its time, never its gain). *Not covered*: loading the base.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time

import torch
import torch.nn.functional as F

from sharedllm import corpus, store
from sharedllm.adapters.personal import Personal, Plan, Search, fit_text, quick_products
from sharedllm.corpus import Document
from sharedllm.model import THIRTY_M_CONFIG, Transformer
from sharedllm.store import Loaded

__all__ = ["measure"]

_BYTES = 50_000
_ROUNDED_TOKENS = 1_024
_REPEATS = 60


def measure(quick: bool = False) -> list[str]:
    """Lines of a table: seconds asked and measured with their floor, tokens per second, and rounding."""
    lines = [f"{torch.get_num_threads()} threads; asked: 180 s at 135m (60 s is the stretch), 5 s at 30m"]
    bases = [("30m, random weights", _random_thirty_m(), 5)]
    if not quick:
        bases.insert(0, ("smollm2-135m", store.load("smollm2-135m"), 180))
    for name, base, asked_s in bases:
        lines += _fitted(name, base, asked_s, _text(12_000 if quick else _BYTES))
    return lines


def _text(n_bytes: int) -> Document:
    """The beginning of one author's training text, as one file would hold it."""
    text = "".join(document.text for document in corpus.user("milton").train)
    data = text.encode()[:n_bytes].decode(errors="ignore").encode()
    return Document("milton", "milton", data.decode(), "own", len(data), hashlib.sha256(data).hexdigest())


def _random_thirty_m() -> Loaded:
    torch.manual_seed(0)
    toy = store.load("toy")
    manifest = dataclasses.replace(toy.manifest, config=THIRTY_M_CONFIG)
    return Loaded(Transformer(THIRTY_M_CONFIG).eval(), toy.tokenizer, manifest)


def _fitted(name: str, base: Loaded, asked_s: float, text: Document) -> list[str]:
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    made = fit_text(base, [text])
    seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    found = made.found
    assert found is not None  # a norm fit searches
    learnt, scored_low, scored = _tokens(made, found, Plan())
    weights, low = _weights(base.model), quick_products(base.model, "norm")
    flop = {low: weights * (4 * learnt + 2 * scored_low)}
    flop["fp32"] = flop.get("fp32", 0) + weights * 2 * scored
    rates = {precision: _rate(base.model, precision) for precision in flop}
    floor_s = math.fsum(flop[precision] / rates[precision] for precision in flop)
    gemm = ", ".join(f"{precision} {rate / 1e9:.0f} GFLOP/s" for precision, rate in rates.items())
    rounding = ", ".join(f"{name} {nats:+.5f}" for name, nats in made.rounding_nats.items())
    gain = made.gain
    return [
        f"{name}, {text.n_bytes:,} bytes: {seconds:.1f} s (asked ≤ {asked_s:.0f}), {cpu_s:.0f} processor-s",
        f"  floor {floor_s:.1f} s at {gemm}: {seconds / floor_s:.1f} × the floor",
        f"  {learnt:,} tokens learnt from, {scored_low + scored:,} scored: "
        f"{(learnt + (scored_low + scored) / 2) / seconds:,.0f} tok/s, a score being half; "
        f"{len(found.trials)} rates",
        f"  gain {gain.nats:.3f} nats per token ({gain.low:.3f} to {gain.high:.3f}), {gain.documents} parts",
        f"  rounding adds, nats per token: {rounding} (asked < 0.001)",
    ]


def _tokens(made: Personal, found: Search, plan: Plan) -> tuple[int, int, int]:
    """Tokens that were learnt from, scored while fitting, and scored in fp32 to judge."""
    rivals = (len(found.trials) - 1) * (max(2, found.steps // 6) - 1)  # the first step is common
    looks = len(found.trials) + len(found.validation_nats) - 1
    held = min(plan.validation_tokens, made.validation_tokens) // plan.window * plan.window
    judged = 2 * made.gain.tokens + 2 * min(_ROUNDED_TOKENS, made.gain.tokens)
    return (found.validation_nats[-1][0] + rivals) * plan.window, looks * held, judged


def _weights(model: Transformer) -> int:
    """Weights in the products of one token: of a mixture of experts, one expert's."""
    config, total = model.config, 0
    for name, weight in model.named_parameters():
        if weight.ndim >= 2 and (name != "embed.weight" or config.tied_head):
            total += weight.numel() // (config.experts if weight.ndim == 3 else 1)
    return total


def _rate(model: Transformer, precision: str) -> float:
    """The best rate of one window times a projection of the base's own shape, in FLOP per second."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x = torch.randn(256, model.config.width).to(dtype)
    weight = torch.randn(model.config.hidden, model.config.width).to(dtype)
    best_s = math.inf
    for _ in range(_REPEATS):
        began_s = time.perf_counter()
        F.linear(x, weight)
        best_s = min(best_s, time.perf_counter() - began_s)
    return 2 * x.numel() * model.config.hidden / best_s
