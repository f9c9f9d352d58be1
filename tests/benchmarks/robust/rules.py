"""Error of each rule under its worst attack, and its time, ours beside ``byzfl``'s on the same vectors.

15 workers send 500 numbers: honest ones a common vector and noise as long as it (iid), or twice as long
(non-iid). Error = ‖aggregate − honest mean‖ / ‖honest mean‖, mean over seeds; the worst attack is the one
with the largest error in each seed. Optimised attacks see our rule; ``byzfl`` gets the vectors that these
send. It stops the geometric median after three steps with ν = 0.1 and clips at 100 from zero, which are its
defaults: those two are other points. "refused" is a rule below its precondition.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from statistics import mean, median

import numpy as np
import torch
from torch import Tensor

from sharedllm.errors import BadAggregate
from sharedllm.robust import aggregate, attack
from tests.benchmarks.robust import byzfl_apart

__all__ = ["measure"]

Rule = Callable[[Tensor], Tensor]

_WORKERS, _SIZE = 15, 500
_RULES = (
    "mean",
    "median",
    "trimmed_mean",
    "geometric_median",
    "krum",
    "multi_krum",
    "centered_clipping",
    "nnm+median",
    "nnm+trimmed_mean",
    "nnm+geometric_median",
)
_ATTACKS = ("scale", "sign-flip", "ipm", "alie", "optimised-alie", "optimised-ipm")
_CASES = ((3, 1.0), (6, 1.0), (7, 1.0), (3, 2.0), (6, 2.0))
_TIMED_SIZE = 100_000


def measure(quick: bool = False) -> list[str]:
    """Lines of two tables: errors, then times."""
    seeds = range(2 if quick else 8)
    heads = [f"f={f} {'iid' if spread == 1 else 'non-iid'}" for f, spread in _CASES]
    lines = [f"error, ours / byzfl ({_WORKERS} workers, {_SIZE} numbers, {len(seeds)} seeds)"]
    lines.append(f"{'rule':22}{'told 3, none lie':>17}{'scale f=3':>19}" + "".join(f"{h:>19}" for h in heads))
    for rule in _RULES:
        clean = [_clean(rule, seed) for seed in seeds]
        scaled = [_errors(rule, 3, 1.0, seed, ("scale",)) for seed in seeds]
        cells = [_cell(clean, 17), _cell(scaled)]
        for f, spread in _CASES:
            cells.append(_cell([_errors(rule, f, spread, seed, _ATTACKS) for seed in seeds]))
        lines.append(f"{rule:22}" + "".join(cells))
    return [*lines, "", *_times(quick)]


def _honest(count: int, spread: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    common_P = torch.randn(_SIZE, generator=generator, dtype=torch.float64)
    return common_P + spread * torch.randn(count, _SIZE, generator=generator, dtype=torch.float64)


def _clean(rule: str, seed: int) -> tuple[float, float] | None:
    honest_HP = _honest(_WORKERS, 1.0, seed)
    return _off(rule, 3, honest_HP, honest_HP)


def _errors(
    rule: str, f: int, spread: float, seed: int, names: tuple[str, ...]
) -> tuple[float, float] | None:
    honest_HP, generator = _honest(_WORKERS - f, spread, seed), torch.Generator().manual_seed(seed)
    worst = (0.0, 0.0)
    for name in names:
        try:
            lies_FP = attack(
                name, honest_HP, f, generator=generator, rule=lambda x_KP: aggregate(x_KP, rule, f)
            )
        except BadAggregate:
            return None
        off = _off(rule, f, honest_HP, torch.cat([honest_HP, lies_FP]))
        if off is None:
            return None
        worst = max(worst[0], off[0]), max(worst[1], off[1])
    return worst


def _off(rule: str, f: int, honest_HP: Tensor, sent_KP: Tensor) -> tuple[float, float] | None:
    mean_P = honest_HP.mean(0)
    try:
        ours_P = aggregate(sent_KP, rule, f)
    except BadAggregate:
        return None
    length = float(mean_P.norm())
    theirs = (
        float((_theirs(rule, f)(sent_KP) - mean_P).norm()) / length if byzfl_apart.installed() else np.nan
    )
    return float((ours_P - mean_P).norm()) / length, theirs


def _theirs(rule: str, f: int) -> Rule:
    library = byzfl_apart.aggregators()
    kinds = {
        "mean": library.Average,
        "median": library.Median,
        "trimmed_mean": lambda: library.TrMean(f),
        "geometric_median": library.GeometricMedian,
        "krum": lambda: library.Krum(f),
        "multi_krum": lambda: library.MultiKrum(f),
        "centered_clipping": lambda: library.CenteredClipping(L=5),
    }
    *before, last = rule.split("+")
    steps = [library.NNM(f) for _ in before] + [kinds[last]()]

    def apply(x_KP: Tensor) -> Tensor:
        for step in steps:
            x_KP = step(x_KP)
        return x_KP

    return apply


def _cell(found: list[tuple[float, float] | None], width: int = 19) -> str:
    pairs = [pair for pair in found if pair is not None]
    if len(pairs) < len(found):
        return f"{'refused':>{width}}"
    ours, theirs = (mean(side) for side in zip(*pairs, strict=True))
    return f"{f'{ours:.3g} / {theirs:.3g}':>{width}}"


def _times(quick: bool) -> list[str]:
    if not byzfl_apart.installed():
        return ["times need byzfl beside ours: pip install --no-deps byzfl==0.0.11"]
    blocks, size = (3, 10_000) if quick else (31, _TIMED_SIZE)
    vectors_KP = torch.randn(_WORKERS, size, generator=torch.Generator().manual_seed(0))
    lines = [
        f"milliseconds for {_WORKERS} × {size:,} numbers in fp32, {blocks} interleaved blocks, "
        f"{torch.get_num_threads()} threads; ratio ours / byzfl (95 %)",
        f"{'rule':22}{'ours':>9}{'byzfl':>9}   ratio",
    ]
    for rule in _RULES:
        arms: dict[str, Rule] = {
            "ours": lambda x, rule=rule: aggregate(x, rule, 3),
            "byzfl": _theirs(rule, 3),
        }
        spent: dict[str, list[float]] = {arm: [] for arm in arms}
        for _, (arm, run) in itertools.product(range(blocks + 1), arms.items()):
            began_s = time.perf_counter()
            run(vectors_KP)
            spent[arm].append(1e3 * (time.perf_counter() - began_s))
        ours, theirs = (np.array(spent[arm][1:]) for arm in arms)  # the first block warms up
        picks = np.random.default_rng(0).integers(blocks, size=(2000, blocks))
        low, high = np.quantile(np.median((ours / theirs)[picks], axis=1), [0.025, 0.975])
        lines.append(
            f"{rule:22}{median(ours):9.2f}{median(theirs):9.2f}   "
            f"{float(np.median(ours / theirs)):.2f} [{low:.2f}, {high:.2f}]"
        )
    return lines
