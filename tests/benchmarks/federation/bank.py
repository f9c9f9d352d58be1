"""Many users in one batch: what their gains cost a token, what they take in memory, how fast they change.

Speeds are ratios of neighbouring steps: the same 64 rows at the same position, with and without gains of
their own, in random order, with an interval that resamples blocks of steps. A model's gains are gathered when
its batch changes; ``anew`` gathers them at every step, as if it always did. An engine gathers per norm.

Switching times are those of ``Bank.gather`` for one user who is in memory, or on disk: then another must
leave, and is written if it never was. ``cold``: the system was asked to forget what it keeps of the file.

*Covered*: both models that the federation serves, batches that stay and batches that always change. *Not
covered*: a machine that other programs keep busy.
"""

from __future__ import annotations

import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sharedllm import store
from sharedllm.adapters import Bank, base_gains
from sharedllm.engines import Stage, lent
from sharedllm.model import THIRTY_M_CONFIG, Transformer, join_weights
from sharedllm.wire import Adapter, Op, Segment, Want

__all__ = ["measure"]

_ROWS = 64
_POSITION = 96  # positions that every row holds while steps are timed
_ASKED = 0.98
_MEMORY_BYTES = 2 << 30

Step = Callable[[], object]


def measure(quick: bool = False) -> list[str]:
    """Lines of a table: speed ratios on two models, then memory and switching times."""
    lines = [f"tokens/s of {_ROWS} rows with {_ROWS} users, as a share of that without adapters (95 %)"]
    for name, blocks, pairs in [("toy", 4, 4)] if quick else [("toy", 40, 10), ("smollm2-135m", 16, 4)]:
        lines += _speeds(name, blocks, pairs)
    return [*lines, *_bank(*((2_000, 300) if quick else (100_000, 10_000)))]


def _speeds(name: str, blocks: int, pairs: int) -> list[str]:
    loaded = store.load(name)
    model = loaded.model.eval().requires_grad_(False)
    join_weights(model)
    with torch.inference_mode():
        whole, lines = _in_model(model), []
        arms = [(label, whole["none"], whole[label]) for label in ("kept", "anew")]
        for label, plain, worn in [*arms, ("engine", *_in_engine(loaded, model))]:
            ratios, step_ms = _ratios(plain, worn, blocks, pairs)
            median, low, high = _interval(ratios)
            lines.append(
                f"{name:13} {label:7} {median:.4f} [{low:.4f}, {high:.4f}]  asked ≥ {_ASKED}  "
                f"({_ROWS / step_ms * 1e3:,.0f} tokens/s without; {blocks} × {pairs} pairs, "
                f"{torch.get_num_threads()} threads)"
            )
    return lines


def _in_model(model: Transformer) -> dict[str, Step]:
    """One step of a whole model: without gains, with gains that are kept, and gathered anew."""
    bank = Bank(base_gains(model), _ROWS)
    for user in range(_ROWS):
        bank.put(str(user), _delta(model, user))
    keys = [str(user) for user in range(_ROWS)]
    kept_BGD = bank.gather(keys)
    tokens_BT = _tokens(model, _POSITION + 1)
    cache = model.cache(_ROWS, _POSITION + 8)
    model(tokens_BT[:, :_POSITION], cache, last_only=True)

    def step(gains_BGD: Tensor | None) -> None:
        model(tokens_BT[:, _POSITION:], cache, gains_BGD=gains_BGD)
        cache.rollback(1)

    return {
        "none": lambda: step(None),
        "kept": lambda: step(kept_BGD),
        "anew": lambda: step(bank.gather(keys)),
    }


def _in_engine(loaded: store.Loaded, model: Transformer) -> tuple[Step, Step]:
    """One step of all layers in an engine: slots that wear nothing, and slots that wear an adapter each."""
    layers = model.config.layers
    stage = Stage(store.opened_span(loaded.manifest, 0, layers))
    slots = stage.slots(_MEMORY_BYTES, _MEMORY_BYTES)
    names, h_BTD = list(model.gains()), model.embed(_tokens(model, _POSITION + 1))
    for user in range(_ROWS):
        delta = dict(zip(names, _delta(model, user), strict=True))
        frame = lent(user + 1, delta, 0, layers, model.config.width)
        slots.wardrobe.adopt(Adapter.from_bytes(frame.meta), bytes(frame.body), slots.worn)
    wear = [Segment(Op.WEAR, _ROWS + row, source=row + 1) for row in range(_ROWS)]
    for number in range(2 * _ROWS):
        ops = wear if not number else []
        chunk = Segment(Op.CHUNK, number, 0, _POSITION, Want.LAST)
        stage.run(h_BTD[number % _ROWS, :_POSITION], (*ops, chunk), slots, {})

    def step(first: int) -> None:
        numbers = range(first, first + _ROWS)
        rows = tuple(Segment(Op.ROWS, number, _POSITION, 1, Want.LAST) for number in numbers)
        stage.run(h_BTD[:, -1], rows, slots, {})
        for number in numbers:
            slots.apply(Segment(Op.ROLLBACK, number, 1))

    return lambda: step(0), lambda: step(_ROWS)


def _delta(model: Transformer, user: int) -> Tensor:
    drawn = torch.Generator().manual_seed(user)
    return 0.02 * torch.randn(len(model.gains()), model.config.width, generator=drawn)


def _tokens(model: Transformer, length: int) -> Tensor:
    drawn = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, (_ROWS, length), generator=drawn)


def _ratios(plain: Step, worn: Step, blocks: int, pairs: int) -> tuple[list[list[float]], float]:
    """What a step takes without gains ÷ with them, in blocks of pairs, and the median time without, in ms."""
    drawn, plain_s = random.Random(0), list[float]()
    for step in (plain, worn) * 3:
        step()
    found = []
    for _ in range(blocks):
        block = []
        for _ in range(pairs):
            order = drawn.sample([plain, worn], 2)
            took_s = {step: _seconds(step) for step in order}
            block.append(took_s[plain] / took_s[worn])
            plain_s.append(took_s[plain])
        found.append(block)
    return found, 1e3 * float(np.median(plain_s))


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


def _bank(residents: int, half: int) -> list[str]:
    """Fill a bank, let ``2 · half`` more users come, and let those who went to disk come back."""
    config = THIRTY_M_CONFIG
    base_GD = torch.ones(2 * config.layers + 1, config.width)
    users = [f"user-{number}" for number in range(residents + 2 * half)]
    drawn_UGD = 0.02 * torch.randn(64, *base_GD.shape)
    chance = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="bank-") as folder:
        before_bytes = _process_bytes()
        bank = Bank(base_GD, residents, Path(folder))
        for number, user in enumerate(users[:residents]):
            bank.put(user, drawn_UGD[number % 64])
        taken_bytes = _process_bytes() - before_bytes
        lines = [
            f"{residents:,} users of {base_GD.numel():,} gains: tensor {bank.nbytes / 1e9:.3f} GB, process "
            f"+{taken_bytes / 1e9:.3f} GB, {taken_bytes / residents:,.0f} bytes each  asked ≈ 9,000 each",
            _switches("in memory", bank, chance.choices(users[:residents], k=2 * half)),
        ]
        for number, user in enumerate(users[residents:]):
            bank.put(user, drawn_UGD[number % 64])
        first, second, third = (users[at * half : (at + 1) * half] for at in range(3))
        rest = users[3 * half :]
        lines.append(_switches("from disk, and one is written", bank, chance.sample(first, half)))
        _use(bank, rest)  # now those who go lie on disk already
        lines.append(_switches("from disk", bank, chance.sample(second, half)))
        _use(bank, rest)
        _forget_pages(bank)
        lines.append(_switches("from disk, cold", bank, chance.sample(third, half)))
    return lines


def _use(bank: Bank, users: Sequence[str]) -> None:
    for user in users:
        bank.row(user)


def _forget_pages(bank: Bank) -> None:
    """Ask the system to forget what it keeps of the bank's file in memory, and not to read ahead."""
    assert bank._disk is not None
    handle = bank._disk._file.fileno()
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)


def _switches(label: str, bank: Bank, users: Sequence[str]) -> str:
    times_us = []
    for user in users:
        began_s = time.perf_counter()
        bank.gather([user])
        times_us.append(1e6 * (time.perf_counter() - began_s))
    middle, late = np.quantile(times_us, [0.5, 0.99])
    return f"switch to a user {label:30} p50 {middle:7.1f} µs  p99 {late:7.1f} µs  ({len(users):,} switches)"


def _process_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
