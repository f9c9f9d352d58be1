"""What an adapter costs, bytes at rest and CPU time of its training, against what it gains.

*Covered*: methods timed in turns, so that a machine that slows down slows them all. *Not covered*: memory
while fitting; the time of evaluations, which every method has as many of.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from sharedllm import adapters
from sharedllm.bets.evidence import Interval
from sharedllm.bets.result import Series
from sharedllm.bets.runner import progress
from sharedllm.store import Loaded

__all__ = ["bytes_and_nats", "bytes_at_fp16", "front", "step_cpu_s"]

_LR = 1e-5  # any rate takes as long


def bytes_at_fp16(adapter: adapters.Adapter) -> int:
    """Count the bytes of the adapter's numbers where every one that is no integer is kept as fp16."""
    return sum(
        tensor.numel() * (2 if tensor.is_floating_point() else tensor.element_size())
        for tensor in adapter.tensors.values()
    )


def step_cpu_s(
    base: Loaded,
    tokens: Sequence[int],
    methods: Sequence[str],
    budget: adapters.Budget,
    *,
    steps: int,
    rounds: int,
    precision: str,
) -> dict[str, float]:
    """Time a training step of each method: CPU seconds of all threads, the median over ``rounds`` fits.

    Each fit takes ``steps`` steps (at least 3), of which the first and the last, where buffers are made and
    validation text is read, do not count. Raises what ``adapters.fit`` raises.
    """
    size = budget.batch * budget.window
    short = replace(budget, tokens=steps * size, evaluations=1, validation=budget.window)
    spent: dict[str, list[float]] = {method: [] for method in methods}
    for method in progress([method for _ in range(rounds) for method in methods], "steps timed"):
        at_s: list[float] = []
        adapters.fit(
            base,
            tokens,
            tokens,
            method,
            _LR,
            0,
            short,
            precision=precision,
            progress=lambda *_, at_s=at_s: at_s.append(time.process_time()),
        )
        spent[method] += np.diff(at_s)[:-1].tolist()
    return {method: float(np.median(seconds)) for method, seconds in spent.items()}


def front(points: Mapping[str, tuple[float, float]]) -> dict[str, bool]:
    """Say of each point (cost, gain) whether no other is as good at both ends and better at one."""
    return {
        name: not any(
            other_cost <= cost and other_gain >= gain and (other_cost, other_gain) != (cost, gain)
            for other_cost, other_gain in points.values()
        )
        for name, (cost, gain) in points.items()
    }


def bytes_and_nats(sizes: Mapping[str, int], gains: Mapping[str, Interval]) -> Series:
    """Draw methods as points of bytes against mean gain over authors, nats per token; at most five."""
    order = sorted(sizes, key=sizes.__getitem__)

    def points(end: str) -> dict[str, list[float | None]]:
        return {name: [getattr(gains[name], end) if name == at else None for at in order] for name in order}

    return Series(
        name="bytes_and_nats",
        kind="interval",
        title="What an adapter weighs, and what it gains on unseen text",
        takeaway="Mean gain over authors: "
        + ", ".join(f"{name} {gains[name].estimate:.3f} nats in {sizes[name]:,} bytes" for name in order),
        alt="Bytes of an adapter in fp16 against its mean gain over authors in nats per token, with 95 % "
        "intervals over authors, one point per method; better is left and up.",
        x=[float(sizes[name]) for name in order],
        y=points("estimate"),
        low=points("low"),
        high=points("high"),
        x_label="bytes at rest",
        y_label="base − adapted, nats per token",
    )
