"""Decoding with packed trits beside fp32, int8, two trit-planes, llama.cpp, and the memory's own speed.

All arms take turns in random order; a ratio compares neighbours, with an interval that resamples rounds.
``products`` are the matrix products of a token alone, head included, as each engine makes them: fp32 packed
for oneDNN, int8 weights of torch (activations rounded to bf16), int8 times int8 of torch (``_int_mm``,
activations rounded to 127 steps), and the kernel. ``engine`` is a whole token as served, attention and all.
The floor of an arm is the time that reading its weights takes, at the speed at which all threads sum so many
bytes. llama.cpp takes part where there is one (``llama``): whole tokens of a model of its own shape.

*Covered*: the shape of SmolLM2-135M, with random weights: speed does not depend on them; lesser instructions
than this processor's best. *Not covered*: a machine that other programs keep busy: those that wait for both
threads lose most.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from sharedllm import store
from sharedllm.engines import Ends, Stage
from sharedllm.engines.ternary import INSTRUCTIONS, CompiledProjection, Runs, kernel, products
from sharedllm.model import Config, PackedProjection, Transformer, int8
from sharedllm.model.projection import Int8Projection
from sharedllm.store import ternary
from sharedllm.wire import Op, Segment, Want
from tests.benchmarks.decode import read_bandwidth_bytes_per_s
from tests.benchmarks.wire import llama

__all__ = ["SHAPE", "measure"]

SHAPE = Config(
    vocab_size=49_152, width=576, layers=30, heads=9, kv_heads=3, head_width=64, hidden=1536, context=2048
)
_QUICK = dataclasses.replace(SHAPE, vocab_size=4096, layers=2)
_POSITION = 64  # of the token that is timed
_CHUNK = 64
_OURS = "ternary"

Step = Callable[[], object]


@dataclasses.dataclass
class Arm:
    """Products in the order in which a token meets them, the inputs of each, and the bytes that they read."""

    products: list[nn.Module]
    inputs: list[int]
    n_bytes: int

    def step(self, rows: int) -> Step:
        given = {width: torch.randn(rows, width) for width in set(self.inputs)}

        def run() -> None:
            for product, width in zip(self.products, self.inputs, strict=True):
                product(given[width])

        return run


class Int8Times8(nn.Module):
    """``torch._int_mm``: int8 weights, and activations rounded to 127 steps of their row's largest."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        kept = Int8Projection(weight)
        self._weight_IO, self._scale_O = kept.weight_int8.T, kept.scale_bf16.float()

    def forward(self, x: Tensor) -> Tensor:
        step = x.abs().amax(dim=-1, keepdim=True) / 127
        whole = torch._int_mm((x / step).round().to(torch.int8), self._weight_IO)
        return whole * (self._scale_O * step)


def measure(quick: bool = False) -> list[str]:
    """Lines of tables: the products of a token, whole tokens, and llama.cpp's if there is one."""
    config, rounds = (_QUICK, 3) if quick else (SHAPE, 25)
    with torch.inference_mode():
        lines = _products(config, rounds, (1, 8) if quick else (1, 8, 64))
        lines += ["", *_engines(config, rounds)]
        lines += ["", *_beside_llama(*((2, 4) if quick else (12, 32)))]
    return lines


def _products(config: Config, rounds: int, many_rows: Sequence[int]) -> list[str]:
    arms, best = _arms(config), INSTRUCTIONS[kernel().instructions]
    lines = [f"products of a token; the kernel has {best}, torch {torch.backends.cpu.get_cpu_capability()}"]
    for rows in many_rows:
        took = _interleaved({name: arm.step(rows) for name, arm in arms.items()}, rounds)
        head = f"{rows} rows" if rows > 1 else "1 row"
        lines.append(f"{head:22}{'tok/s':>8}{'GB/s':>7}{'MB':>6}{'% of floor':>11}   time ÷ {_OURS} (95 %)")
        for name, arm in arms.items():
            middle_s = float(np.median(took[name]))
            gb, floor_s = arm.n_bytes / 1e9, arm.n_bytes / read_bandwidth_bytes_per_s(arm.n_bytes)
            lines.append(
                f"  {name:20}{rows / middle_s:8,.1f}{gb / middle_s:7.1f}{1e3 * gb:6.0f}"
                f"{100 * floor_s / middle_s:11.0f}   {_against(took[name], took[_OURS])}"
            )
    return lines


def _arms(config: Config) -> dict[str, Arm]:
    inner, outer = config.heads * config.head_width, config.kv_heads * config.head_width
    layer = [
        (inner + 2 * outer, config.width),
        (config.width, inner),
        (2 * config.hidden, config.width),
        (config.width, config.hidden),
    ]
    shapes = [*(layer * config.layers), (config.vocab_size, config.width)]
    best = kernel()
    makers: dict[str, tuple[int, Callable[[int, int], nn.Module]]] = {
        "fp32": (32, lambda o, i: PackedProjection(torch.randn(o, i))),
        "int8 × bf16": (8, lambda o, i: Int8Projection(torch.randn(o, i))),
        "int8 × int8": (8, lambda o, i: Int8Times8(torch.randn(o, i))),
        _OURS: (2, lambda o, i: _packed(o, i, planes=1)),
        "two planes": (4, lambda o, i: _packed(o, i, planes=2)),
        **{
            f"{_OURS}, {name}": (2, functools.partial(_packed, planes=1, instructions=at))
            for at, name in enumerate(INSTRUCTIONS[: best.instructions])
        },
    }
    n_hidden, n_head = sum(o * i for o, i in shapes[:-1]), config.vocab_size * config.width
    arms = {}
    for name, (bits, make) in makers.items():
        made = [make(*shape) for shape in shapes[:-1]]
        head = _head(config) if bits < 8 else make(*shapes[-1])
        n_bytes = n_hidden * bits // 8 + n_head * max(bits, 8) // 8
        arms[name] = Arm([*made, head], [inputs for _, inputs in shapes], n_bytes)
    return arms


def _packed(outputs: int, inputs: int, planes: int, instructions: int | None = None) -> CompiledProjection:
    """A matrix of random trits, for the best instructions or for lesser ones."""
    steps = torch.randint(-1, 2, (outputs, planes, inputs), dtype=torch.int8)
    best = kernel()
    used = best if instructions is None else dataclasses.replace(best, instructions=instructions)
    with mock.patch.object(products, "kernel", return_value=used):
        return CompiledProjection(Runs(steps, torch.rand(outputs, planes), 1, trits=True))


def _head(config: Config) -> CompiledProjection:
    steps = torch.randint(-127, 128, (config.vocab_size, 1, config.width), dtype=torch.int8)
    return CompiledProjection(Runs(steps, torch.rand(config.vocab_size, 1), 1, trits=False))


def _engines(config: Config, rounds: int) -> list[str]:
    """Whole tokens, and chunks of a prompt, by each way to serve the same ternary file."""
    with _kept(config) as manifest:
        packed = Stage.opened(manifest, 0, config.layers), Ends.opened(manifest)
        restored = (
            Stage(store.opened_span(manifest, 0, config.layers)),
            Ends(config, store.opened_ends(manifest)),
        )
    model = int8(Transformer(config).eval().requires_grad_(False))
    steps = {_OURS: _served(*packed), "restored to fp32": _served(*restored), "int8 (generate)": _int8(model)}
    took = {
        what: _interleaved({name: both[at] for name, both in steps.items()}, rounds)
        for at, what in enumerate(("a token", f"a chunk of {_CHUNK}"))
    }
    lines = [f"engine, one process, {torch.get_num_threads()} threads: ms (time ÷ {_OURS}, 95 %)"]
    for name in steps:
        told = "   ".join(
            f"{what} {1e3 * float(np.median(each[name])):8.2f} ms  {_against(each[name], each[_OURS])}"
            for what, each in took.items()
        )
        lines.append(f"  {name:20}{told}")
    held = [stage.weights_bytes for stage, _ in (packed, restored)]
    return [
        *lines,
        f"  weights of all layers: packed {held[0] / 1e6:.1f} MB, restored {held[1] / 1e6:.1f} MB",
    ]


def _beside_llama(rounds: int, tokens: int) -> list[str]:
    """Tokens per second of llama.cpp's formats and of our engine, in turns."""
    python = llama.interpreter()
    if python is None:
        return ["llama.cpp: not asked, for LLAMA_PYTHON names no interpreter that has it"]
    threads, config, drawn = torch.get_num_threads(), llama.SHAPE, random.Random(0)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        manifest = stack.enter_context(_kept(config))
        token, _ = _served(Stage.opened(manifest, 0, config.layers), Ends.opened(manifest))
        arms: dict[str, Callable[[], float]] = {
            _OURS: lambda: tokens / sum(_seconds(token) for _ in range(tokens))
        }
        sizes = {_OURS: manifest.sizes["weights"]}
        for form in llama.FORMATS:
            llama.write(folder / form, form)
            peer = stack.enter_context(llama.decoding(python, folder / form, threads))
            arms[f"llama.cpp {form}"] = functools.partial(peer.tok_per_s, tokens)
            sizes[f"llama.cpp {form}"] = (folder / form).stat().st_size
        found: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(rounds):
            for name in drawn.sample(list(arms), len(arms)):
                found[name].append(arms[name]())
    shape = f"{config.layers} layers of {config.width}"
    lines = [f"whole tokens, {shape}, {threads} threads: tok/s (÷ {_OURS}, 95 %), MB of file"]
    return [
        *lines,
        *(
            f"  {name:20}{np.median(many):8,.1f}  {_against(many, found[_OURS])}  {sizes[name] / 1e6:6.1f} MB"
            for name, many in found.items()
        ),
    ]


@contextlib.contextmanager
def _kept(config: Config) -> Iterator[store.Manifest]:
    """A ternary model with random weights, in a store of its own."""
    kernel()  # in the store that there was
    tokenizer = store.load("toy").tokenizer
    with tempfile.TemporaryDirectory() as home, mock.patch.dict(os.environ, SHAREDLLM_HOME=home):
        weights = ternary.rounded(Transformer(config).state_dict(), scale="mean")
        yield store.keep_ternary("random", config, tokenizer, weights, licence="CC0-1.0", provenance={})


def _seconds(step: Step) -> float:
    began_s = time.perf_counter()
    step()
    return time.perf_counter() - began_s


def _served(stage: Stage, ends: Ends) -> tuple[Step, Step]:
    slots = stage.slots(1 << 30)
    prompt = ends.embed([7] * _POSITION)
    stage.run(prompt, (Segment(Op.CHUNK, 1, 0, _POSITION, Want.LAST),), slots, {})

    def token() -> None:
        h_RD, _ = stage.run(ends.embed([7]), (Segment(Op.ROWS, 1, _POSITION, 1, Want.LAST),), slots, {})
        ends.logits(h_RD).argmax()
        slots.apply(Segment(Op.ROLLBACK, 1, 1))

    def chunk() -> None:
        stage.run(prompt, (Segment(Op.CHUNK, 1, _POSITION, _CHUNK, Want.LAST),), slots, {})
        slots.apply(Segment(Op.ROLLBACK, 1, _CHUNK))

    return token, chunk


def _int8(model: Transformer) -> tuple[Step, Step]:
    cache = model.cache(1, _POSITION + 2 * _CHUNK)
    model(torch.full((1, _POSITION), 7), cache, last_only=True)

    def fed(tokens: int) -> None:
        model(torch.full((1, tokens), 7), cache, last_only=True).argmax()
        cache.rollback(tokens)

    return lambda: fed(1), lambda: fed(_CHUNK)


def _interleaved(steps: Mapping[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in every round, in random order, after one that does not count."""
    drawn, took = random.Random(0), {name: list[float]() for name in steps}
    for number in range(rounds + 1):
        for name in drawn.sample(list(steps), len(steps)):
            took_s = _seconds(steps[name])
            if number:
                took[name].append(took_s)
    return took


def _against(took: Sequence[float], other: Sequence[float]) -> str:
    """The median ratio of neighbours, with a 95 % percentile bootstrap over rounds."""
    ratios, drawn = np.asarray(took) / np.asarray(other), np.random.default_rng(0)
    medians = np.median(ratios[drawn.integers(len(ratios), size=(2000, len(ratios)))], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return f"{np.median(ratios):5.2f} [{low:.2f}, {high:.2f}]"
