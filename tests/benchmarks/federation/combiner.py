"""What a token costs under each rule, beside two floors and a naive peer; slack at the edge; losses on text.

A token is one ``joint`` over the whole vocabulary and one ``observe``; ``pruned`` reads who is awake alone,
while one specialist of all knows the text. The peer is ``torch.logsumexp`` over stacked log-probabilities and
log-weights. The floors of the same run: the time to read N · V numbers of 4 bytes at the bandwidth measured
on memory that no cache holds, and the time of one exponential per number, which every mean of order above
zero needs. All arms take turns in random order; ratios are paired, with an interval that resamples rounds.

*Covered*: SmolLM2's vocabulary, in fp32; and, ``as served``, from logits to weights in fp64. *Not covered*: a
machine that other programs keep busy; what the specialists themselves take.
"""

from __future__ import annotations

import functools
import math
import random
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sharedllm.combiner import (
    Bayes,
    Combiner,
    FixedShare,
    Pruned,
    Router,
    Static,
    Uniform,
    Weights,
    mixture,
    power_slack,
    token_slack,
    tolerance,
)
from tests.benchmarks.federation.combiner_text import losses

__all__ = ["measure"]

_VOCABULARY = 49_152
_WIDTH = 576
_ALPHA = 0.02
_TOKENS = 8
_ORDERS = (0.0, 0.5, 1.0)

Act = Callable[[int], object]
"""What an arm does when a token has come."""


def measure(quick: bool = False) -> list[str]:
    """Lines of three tables: microseconds per token by rule, slack at the edge, bits per byte on text."""
    read, exponential = _rates(32 << 20 if quick else 256 << 20)
    lines = [
        f"{_VOCABULARY:,} tokens, {torch.get_num_threads()} threads; memory read at {read / 1e9:.1f} GB/s, "
        f"one exponential per {1e9 / exponential:.2f} ns"
    ]
    for n in (2, 4, 16) if quick else (2, 3, 4, 6, 8, 12, 16):
        lines += _times(n, read, exponential, 5 if quick else 60)
    return [*lines, *_edge(), *losses(quick)]


def _rates(n_bytes: int) -> tuple[float, float]:
    """Bytes per second out of memory, and exponentials per second; the best of a few."""
    wide = torch.ones(n_bytes // 4)
    near = torch.rand(4, _VOCABULARY)
    return n_bytes / min(_seconds(wide.sum) for _ in range(5)), near.numel() / min(
        _seconds(near.exp) for _ in range(20)
    )


def _seconds(act: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    act()
    return time.perf_counter() - began_s


def _kinds(n: int) -> dict[str, Combiner]:
    uneven_N = torch.arange(1.0, n + 1).log().log_softmax(0)
    drawn = torch.Generator().manual_seed(0)
    gate_NF = torch.randn(n, _WIDTH, generator=drawn) / _WIDTH
    router = Router(gate_NF, torch.zeros(n), torch.zeros(_WIDTH), torch.ones(_WIDTH))
    weights: dict[str, Weights] = {
        "uniform": Uniform(n),
        "static": Static(uneven_N),
        "Bayes": Bayes(n),
        "fixed share": FixedShare(n, _ALPHA),
        "router": router,
        "pruned fixed share": Pruned(FixedShare(n, _ALPHA)),
    }
    made = {name: Combiner(one) for name, one in weights.items()}
    return made | {f"power mean, r = {r:g}": Combiner(Uniform(n), r) for r in _ORDERS}


def _times(n: int, read: float, exponential: float, rounds: int) -> list[str]:
    """One line per rule: median µs of a token, as multiples of both floors and of the peer."""
    drawn = torch.Generator().manual_seed(n)
    logits_NV = 3 * torch.randn(n, _VOCABULARY, generator=drawn)
    logp_NV = logits_NV.log_softmax(-1)
    tokens = logp_NV[0].exp().multinomial(_TOKENS, generator=drawn).tolist()
    context_F = torch.randn(_WIDTH, generator=drawn)
    arms: dict[str, Act] = {
        name: functools.partial(_token, combiner, logp_NV, context_F) for name, combiner in _kinds(n).items()
    }
    logw_N1 = Uniform(n).logw_N.float()[:, None]
    arms["naive peer"] = lambda token: torch.logsumexp(torch.stack([*logp_NV]) + logw_N1, 0)
    served = FixedShare(n, _ALPHA)
    arms["as served"] = functools.partial(_served, served, logits_NV)
    us = _in_turns(arms, tokens, rounds)
    read_us, floor_us = 1e6 * 4 * logp_NV.numel() / read, 1e6 * logp_NV.numel() / exponential
    course = Pruned(FixedShare(n, _ALPHA)).course(logp_NV[:, tokens * rounds])
    lines = [
        f"N = {n}: floors {read_us:.0f} µs to read, {floor_us:.0f} µs of exponentials; pruned skips "
        f"{100 - 100 * course.asked / course.awake_NT.numel():.0f} % of {n} specialists"
    ]
    for name, us_R in us.items():
        middle = float(np.median(us_R))
        ratio, low, high = _interval(us_R / us["naive peer"])
        lines.append(
            f"  {name:20} {middle:8.0f} µs  {middle / read_us:6.1f} × reading  {middle / floor_us:5.1f} × exp"
            f"  {ratio:6.2f} × peer [{low:.2f}, {high:.2f}]"
        )
    return lines


def _token(combiner: Combiner, logp_NV: Tensor, context_F: Tensor, token: int) -> None:
    combiner.weights.look(context_F)
    combiner.joint(logp_NV)
    combiner.observe(logp_NV, token)


def _served(weights: FixedShare, logits_NV: Tensor, token: int) -> None:
    """What a primary does for a mixture's token, but for choosing it."""
    logp_NV = torch.stack([*logits_NV]).double().log_softmax(-1)
    mixture(logp_NV, weights.logw_N)
    weights.observe(logp_NV[:, token])


def _in_turns(arms: dict[str, Act], tokens: Sequence[int], rounds: int) -> dict[str, np.ndarray]:
    """Microseconds of every arm in every round, the median of its tokens; a first round does not count."""
    chance, taken_us = random.Random(0), {name: list[float]() for name in arms}
    for turn in range(rounds + 1):
        for name in chance.sample(list(arms), len(arms)):
            each_s = [_seconds(functools.partial(arms[name], token)) for token in tokens]
            if turn:
                taken_us[name].append(1e6 * float(np.median(each_s)))
    return {name: np.asarray(us) for name, us in taken_us.items()}


def _interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """The median ratio, with a 95 % percentile bootstrap over rounds."""
    drawn = np.random.default_rng(0)
    samples = np.median(drawn.choice(ratios, (2000, len(ratios))), 1)
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def _edge() -> list[str]:
    """Slack and |ln Σ exp m| of each rule on logits of ±1e4, with and without zero probabilities."""
    drawn, n, tokens, vocabulary = torch.Generator().manual_seed(1), 6, 64, 512
    logits_NTV = 1e4 * (2 * torch.rand(n, tokens, vocabulary, generator=drawn, dtype=torch.float64) - 1)
    zeros_NTV = logits_NTV.masked_fill(torch.rand(logits_NTV.shape, generator=drawn) < 0.3, -math.inf)
    zeros_NTV[:, :, 0] = 0.0  # a token that nobody rules out
    came_T = torch.randint(vocabulary, (tokens,), generator=drawn)
    may = [f"{-tolerance(dtype, 2e4):.0e}" for dtype in (torch.float32, torch.float64)]
    lines = [
        f"numbers at the edge, {n} specialists: least slack and largest |ln Σ exp m|, nats; fp32, then fp64; "
        f"rounding alone may make a slack {' and '.join(may)}"
    ]
    for name, given in (("logits ±1e4", logits_NTV), ("±1e4 and −inf", zeros_NTV)):
        cells: dict[str, list[str]] = {}
        for dtype in (torch.float32, torch.float64):
            logp_NTV = given.log_softmax(-1).to(dtype)
            for rule, (slack, off) in _slacks(logp_NTV, came_T).items():
                cells.setdefault(rule, []).append(f"slack {slack:+9.1e}, off {off:8.1e}")
        lines += [f"  {name:14} {rule:20} " + "   ".join(both) for rule, both in cells.items()]
    return lines


def _slacks(logp_NTV: Tensor, came_T: Tensor) -> dict[str, tuple[float, float]]:
    """Least slack of a rule's inequalities, and how far from one its probabilities add up."""
    n = len(logp_NTV)
    a_NT = logp_NTV.gather(2, came_T[None, :, None].expand(n, -1, 1))[..., 0]
    found = {}
    for name, weights in (
        ("uniform", Uniform(n)),
        ("Bayes", Bayes(n)),
        ("fixed share", FixedShare(n, _ALPHA)),
    ):
        found[name] = token_slack(logp_NTV, weights.run(a_NT), came_T).minimum()
    even_NT = Uniform(n).run(a_NT)
    for r in _ORDERS:
        found[f"power mean, r = {r:g}"] = power_slack(logp_NTV, even_NT, r, came_T).minimum()
    outcome = {
        name: (min(v for k, v in slack.items() if k != "sums_to_one_nats"), -slack["sums_to_one_nats"])
        for name, slack in found.items()
    }
    naive_TV = logp_NTV.exp().mean(0).log()
    lost = float((naive_TV.gather(1, came_T[:, None])[:, 0] - mixture(a_NT, even_NT)).min())
    return outcome | {"naive: ln mean exp": (lost, float(naive_TV.double().logsumexp(1).abs().max()))}
