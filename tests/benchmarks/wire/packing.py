"""Trits: packed and unpacked how fast, against the memory's own speed, and coded how small.

Speeds count the bytes that come out: one for each int8 trit, four for each fp32 weight with its scale. Each
is timed beside filling as many new bytes with a constant, which nothing that makes them can beat, in random
order; intervals resample blocks of pairs. One thread unpacks; torch's threads multiply by scales.

Coders are those of bet b105, on the hidden matrices of a rounded model, one coded piece per block of it.

*Covered*: shapes of SmolLM2-135M, memory that is new each time, as when a model is opened. *Not covered*: a
file that is not in the system's cache yet.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from sharedllm import store
from sharedllm.bets.packing import CODERS, Matrix, entropy_bits, rounded_blocks
from sharedllm.store import ternary
from sharedllm.store.ternary import TernaryTensor

__all__ = ["measure"]

_SHAPE = (1536, 576)
_ASKED_MB_PER_S = 500
_PER_BYTE = 1.6

Step = Callable[[], object]


def measure(quick: bool = False) -> list[str]:
    """Lines of two tables: speeds, then sizes."""
    name, matrices, blocks, pairs = ("toy", 2, 4, 3) if quick else ("smollm2-135m", 12, 30, 4)
    return [*_speeds(matrices, blocks, pairs), "", *_sizes(name), "", *_files(name)]


def _speeds(matrices: int, blocks: int, pairs: int) -> list[str]:
    made = [_drawn(seed) for seed in range(matrices)]
    trits = [tensor.unpacked() for tensor in made]
    n = matrices * _SHAPE[0] * _SHAPE[1]
    one = torch.tensor(1, dtype=torch.int8)
    with tempfile.TemporaryDirectory() as folder:
        opened = _file(Path(folder) / "x.ternary", made)
        arms: dict[str, tuple[Step, Step, int]] = {
            "pack int8 trits": (
                lambda: [ternary.pack(each) for each in trits],
                lambda: [torch.full((each.numel() // 5,), 1, dtype=torch.uint8) for each in trits],
                n,
            ),
            "unpack to int8 trits": (
                lambda: [tensor.unpacked() for tensor in made],
                lambda: [one.expand(_SHAPE).clone() for _ in made],
                n,
            ),
            "restore fp32 weights": (
                lambda: [tensor.restored() for tensor in made],
                lambda: [torch.full(_SHAPE, 1.0) for _ in made],
                4 * n,
            ),
            "… from a file, hashed": (
                lambda: [opened.restored(name) for name in opened],
                lambda: [torch.full(_SHAPE, 1.0) for _ in made],
                4 * n,
            ),
        }
        lines = [f"{'':24}{'MB/s':>8}{'asked':>8}   time ÷ that of filling as many bytes (95 %)"]
        for what, (step, floor, n_bytes) in arms.items():
            ratios, took_s = _ratios(step, floor, blocks, pairs)
            median, low, high = _interval(ratios)
            asked = "" if what.startswith("pack") else f"≥ {_ASKED_MB_PER_S}"
            lines.append(
                f"{what:24}{n_bytes / took_s / 1e6:8,.0f}{asked:>8}   {median:.2f} [{low:.2f}, {high:.2f}]"
            )
    return [*lines, f"({n:,} weights; {blocks} × {pairs} pairs, {torch.get_num_threads()} torch threads)"]


def _drawn(seed: int) -> TernaryTensor:
    generator = torch.Generator().manual_seed(seed)
    return TernaryTensor.of(ternary.ternarise(torch.randn(_SHAPE, generator=generator), scale="optimal"))


def _file(path: Path, made: Sequence[TernaryTensor]) -> ternary.Opened:
    """A file of these weights, which is a model to nobody else."""
    toy = store.load("toy")
    weights = {f"blocks.{i}.weight": tensor for i, tensor in enumerate(made)}
    with path.open("wb") as file:
        ternary.write(file, toy.manifest.config, toy.tokenizer, weights, licence="", provenance={})
    return ternary.read(path)


def _ratios(step: Step, floor: Step, blocks: int, pairs: int) -> tuple[list[list[float]], float]:
    """What a step takes ÷ what the floor takes, in blocks of pairs, and the step's median time in s."""
    drawn, took = random.Random(0), list[float]()
    step(), floor()
    found = []
    for _ in range(blocks):
        block = []
        for _ in range(pairs):
            took_s = {each: _seconds(each) for each in drawn.sample([step, floor], 2)}
            block.append(took_s[step] / took_s[floor])
            took.append(took_s[step])
        found.append(block)
    return found, float(np.median(took))


def _seconds(step: Step) -> float:
    began_s = time.perf_counter()
    step()
    return time.perf_counter() - began_s


def _interval(ratios: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """The median over all pairs, with a 95 % percentile bootstrap over blocks."""
    blocks, drawn = np.asarray(ratios), np.random.default_rng(0)
    samples = [np.median(blocks[drawn.integers(len(blocks), size=len(blocks))]) for _ in range(2000)]
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(np.median(blocks)), float(low), float(high)


def _sizes(name: str) -> list[str]:
    """Bytes and speeds of each coder, on packed trits: MB/s count packed bytes."""
    blocks = list(rounded_blocks(store.load(name).model, "optimal").values())
    n, packed = (sum(f(m) for block in blocks for m in block) for f in (lambda m: m.n, _length))
    limit = sum(map(entropy_bits, blocks)) / 8
    lines = [
        f"{name + ', rounded':24}{'bytes':>12}{'bits':>8}{'saved':>8}{'over entropy':>14}"
        f"{'MB/s in':>9}{'out':>6}"
    ]
    rows = {"five to a byte": float(packed), "entropy": limit}
    for what, n_bytes in rows.items():
        lines.append(_size(what, n_bytes, n, packed, limit))
    for what, coder in CODERS.items():
        began_s = time.perf_counter()
        coded = [coder.encode(block) for block in blocks]
        between_s = time.perf_counter()
        for data, block in zip(coded, blocks, strict=True):
            coder.decode(data, [len(m.packed) for m in block])
        ended_s = time.perf_counter()
        in_s, out_s = between_s - began_s, ended_s - between_s
        speeds = f"{packed / in_s / 1e6:9,.0f}{packed / out_s / 1e6:6,.0f}"
        lines.append(_size(what, float(sum(map(len, coded))), n, packed, limit) + speeds)
    return lines


def _length(matrix: Matrix) -> int:
    return len(matrix.packed)


def _size(what: str, n_bytes: float, n: int, packed: int, limit: float) -> str:
    over, saved = n_bytes / limit - 1, 1 - n_bytes / packed
    return f"{what:24}{n_bytes:12,.0f}{8 * n_bytes / n:8.4f}{saved:8.2%}{over:14.2%}"


def _files(name: str) -> list[str]:
    """The whole file, and the frame in which it travels."""
    loaded = store.load(name)
    lines = [f"{name + ', whole file':24}{'bytes':>12}{'as a frame':>12}{'saved':>8}"]
    with tempfile.TemporaryDirectory() as folder:
        for planes in (1, 2):
            path = Path(folder) / f"{planes}.ternary"
            coded = path.with_suffix(ternary.coding.SUFFIX)
            weights = ternary.rounded(loaded.model.state_dict(), planes=planes)
            with path.open("wb") as file:
                config, about = loaded.manifest.config, {"base": name}
                ternary.write(file, config, loaded.tokenizer, weights, licence="", provenance=about)
            with coded.open("wb") as sink:
                ternary.coding.encode(path, sink)
            plain, small = path.stat().st_size, coded.stat().st_size
            what = f"{planes} plane{'s' if planes > 1 else ''}"
            lines.append(f"{what:24}{plain:12,}{small:12,}{1 - small / plain:8.1%}")
    return lines
