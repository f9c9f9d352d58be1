"""Joint training with liars among the workers: plans, and losses as a multiple of the undisturbed run's.

*Covered*: liars, workers who leave and come back, and a cut, in one run; test losses of the weights that
validation text liked best, and the validation loss of the last weights beside them, for stopping early can
hide what liars did in the end. *Not covered*: rates tuned for each rule (all arms run at the clean mean's).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sharedllm.bets.evidence import Interval
from sharedllm.bets.rounds import Ran
from sharedllm.training.outer import Away, Cut, Plan

__all__ = ["CAP_NATS", "Multiple", "beset", "disturbed", "multiple"]

CAP_NATS = 1_000.0  # what a run without a finite loss counts as, nats per token


@dataclass(frozen=True)
class Multiple:
    """Loss of an arm over that of the clean one: of the best weights on test text, of the last on validation.

    The interval resamples test documents, each the mean over seeds; ``by_seed`` and ``last`` are means over
    documents.
    """

    interval: Interval
    by_seed: tuple[float, ...]
    last: float


def beset(plan: Plan, rule: str, liars: int, attack: str) -> Plan:
    """Let the last ``liars`` workers of a clean plan lie; the rule is told how many."""
    first = plan.workers - liars
    who = tuple(range(first, plan.workers))
    return dataclasses.replace(plan, rule=rule, assumed_liars=liars, liars=who, attack=attack)


def disturbed(plan: Plan, rounds: int) -> Plan:
    """Let two workers be away for a quarter of the rounds each, and three be cut off.

    Worker 0 is gone in the second quarter, worker 1 in the third; workers 0 to 2 hear nobody else in the
    first half of the last. What they did alone is lost when the cut heals, for they are fewer.
    """
    quarter = rounds // 4
    away = (Away(0, quarter, 2 * quarter), Away(1, 2 * quarter, 3 * quarter))
    cut = Cut((0, 1, 2), 3 * quarter, 3 * quarter + max(1, quarter // 2))
    return dataclasses.replace(plan, away=away, cuts=(cut,))


def multiple(arm: Sequence[Ran], clean: Sequence[Ran], resamples: int) -> Multiple:
    """Compare runs seed by seed; a run without a finite loss counts as ``CAP_NATS``."""
    documents = list(clean[0].test_nats)
    above_SD, below_SD = (_losses(runs, documents) for runs in (arm, clean))
    picks_RD = np.random.default_rng(0).integers(len(documents), size=(resamples, len(documents)))
    above_D, below_D = above_SD.mean(0), below_SD.mean(0)
    low, high = np.quantile(above_D[picks_RD].mean(1) / below_D[picks_RD].mean(1), [0.025, 0.975])
    whole = float(above_D.mean() / below_D.mean())
    return Multiple(
        Interval(whole, float(low), float(high), 0.95, len(documents)),
        tuple((above_SD.mean(1) / below_SD.mean(1)).tolist()),
        float(np.mean([_last(run) for run in arm]) / np.mean([_last(run) for run in clean])),
    )


def _losses(runs: Sequence[Ran], documents: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[min(CAP_NATS, run.test_nats.get(d, CAP_NATS)) for d in documents] for run in runs])


def _last(run: Ran) -> float:
    return CAP_NATS if run.diverged or not run.points else min(CAP_NATS, run.points[-1].validation_nats)
