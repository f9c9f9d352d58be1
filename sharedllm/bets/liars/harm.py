"""What attacks do to a rule: the aggregate under each of them, its error, and one rule's against another's.

*Covered*: attacks optimised against the very rule that they are charged to, worst case over attacks taken
anew in each seed. *Not covered*: an attack that is not among ``sharedllm.robust.ATTACKS``: worst of these is
no proof of the worst there is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sharedllm.bets.evidence import Interval, bootstrap
from sharedllm.bets.result import Series
from sharedllm.robust import aggregate, attack

__all__ = ["Harm", "attacked", "error_curve", "harm", "ratio"]


@dataclass(frozen=True)
class Harm:
    """Distance of a rule's answer from the honest mean, as a share of that mean's length, by seed.

    ``clean`` is without a liar, the rule still told of f, or of as many as it bears among the honest alone;
    ``attacked`` is by attack.
    """

    clean: list[float]
    attacked: Mapping[str, list[float]]

    @property
    def worst(self) -> list[float]:
        """Give the error under each seed's worst attack."""
        return [max(errors) for errors in zip(*self.attacked.values(), strict=True)]


def attacked(honest_HP: Tensor, rule: str, f: int, attacks: Sequence[str], seed: int) -> dict[str, Tensor]:
    """Aggregate the honest vectors and those of f liars, by attack; the rule is told the true f.

    Raises ``BadAggregate`` for f that the rule does not bear.
    """
    answer = functools.partial(aggregate, rule=rule, f=f)
    found = {}
    for name in attacks:
        chance = torch.Generator().manual_seed(seed)
        lies_FP = attack(name, honest_HP, f, generator=chance, rule=answer)
        found[name] = answer(torch.cat([honest_HP, lies_FP]))
    return found


def harm(honest: Sequence[Tensor], rule: str, f: int, attacks: Sequence[str], seeds: Sequence[int]) -> Harm:
    """Measure a rule on one ``honest_HP`` per seed; raises ``BadAggregate`` for f that it does not bear."""
    by_attack: dict[str, list[float]] = {name: [] for name in attacks}
    for seed, honest_HP in zip(seeds, honest, strict=True):
        for name, answer_P in attacked(honest_HP, rule, f, attacks, seed).items():
            by_attack[name].append(_error(honest_HP, answer_P))
    told = min(f, (len(honest[0]) - 1) // 2)
    return Harm([_error(honest_HP, aggregate(honest_HP, rule, told)) for honest_HP in honest], by_attack)


def ratio(above: Harm, below: Harm, resamples: int) -> Interval:
    """Give the geometric mean of the seeds' ratios of worst errors, with an interval that resamples seeds."""
    logs = np.log(above.worst) - np.log(below.worst)
    found = bootstrap(logs, range(len(logs)), resamples=resamples)
    low, high = math.exp(found.low), math.exp(found.high)
    return Interval(math.exp(found.estimate), low, high, found.level, found.clusters)


def error_curve(
    kind: str, honest: int, by_rule: Mapping[str, Mapping[int, Harm]], told: Sequence[str]
) -> Series:
    """Draw the mean worst error over the fraction of liars, a line per rule; ``told`` are in the takeaway."""
    counts = list(next(iter(by_rule.values())))
    y: dict[str, list[float | None]] = {
        rule: [float(np.mean(row[f].worst)) for f in counts] for rule, row in by_rule.items()
    }
    most = counts[-1]
    return Series(
        name=f"curve_{kind.replace('-', '_')}",
        kind="line",
        title=f"Worst-case error over the fraction of liars, {kind}",
        takeaway=f"{most} liars beside {honest} honest workers: "
        + ", ".join(f"{rule} {y[rule][-1]:.2f}" for rule in told),
        alt="Lines over the fraction of liars, one per rule: distance of the aggregate from the honest mean "
        "under the worst attack, mean over seeds.",
        x=[f / (honest + f) for f in counts],
        y=y,
        x_label="fraction of liars",
        y_label="worst error, in lengths of the honest mean",
    )


def _error(honest_HP: Tensor, answer_P: Tensor) -> float:
    mean_P = honest_HP.mean(0)
    return float((answer_P - mean_P).norm() / mean_P.norm())
