"""Arms of a comparison: each setting at its own best rate and outer step, then run with several seeds.

*Covered*: rate and outer step are chosen by validation text and with a seed of their own, which no arm is
judged with; differences are paired by seed and test document. *Not covered*: intervals over seeds, of which
there are few: they cover documents, and each seed's difference stands beside them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sharedllm.bets.evidence import Interval, bootstrap
from sharedllm.bets.rounds.field import Field
from sharedllm.bets.rounds.runs import Ran, ran
from sharedllm.bets.rounds.tuning import Tuned, tuned
from sharedllm.errors import RunFailed
from sharedllm.training import Recipe
from sharedllm.training.outer import Plan

__all__ = ["Arm", "Difference", "at_rate", "chosen", "difference"]


def at_rate(recipe: Recipe, lr: float) -> Recipe:
    """Set the rate that is tuned: AdamW's of everything, or Muon's of the hidden matrices."""
    whole = recipe.optimizer == "adamw"
    return dataclasses.replace(recipe, lr=lr, adamw_lr=lr if whole else recipe.adamw_lr)


@dataclass(frozen=True)
class Arm:
    """A setting at its chosen rate: where it runs, how, and what was tried (``trials``: one per plan)."""

    field: Field
    recipe: Recipe
    plan: Plan
    trials: tuple[Tuned, ...]

    @property
    def validation_nats(self) -> float:
        return min(trial.least_nats for trial in self.trials)

    @property
    def at_edge(self) -> bool:
        """Whether the chosen rate lacks a worse one on either side."""
        return min(self.trials, key=lambda trial: trial.least_nats).at_edge

    def runs(self, seeds: Sequence[int], **changed: object) -> list[Ran]:
        """Run with each seed, with some of the plan changed if need be.

        Raises ``RunFailed`` when a run had no finite loss at all, for then nothing can be compared.
        """
        plan = dataclasses.replace(self.plan, **changed)  # type: ignore[arg-type]
        made = [ran(self.field, self.recipe, plan, seed) for seed in seeds]
        if lost := [seed for seed, one in zip(seeds, made, strict=True) if one.best is None]:
            raise RunFailed(f"Seed {lost[0]} of {plan} had no finite loss; give the sweep more trials.")
        return made


def chosen(field: Field, recipe: Recipe, plans: Mapping[Plan, float], *, most: int, seed: int) -> Arm:
    """Tune the rate of each plan, from the one beside it; keep the plan and rate of least validation loss."""

    def trial(plan: Plan, centre: float) -> Tuned:
        return tuned(lambda lr: ran(field, at_rate(recipe, lr), plan, seed).validation_nats, centre, most)

    trials = {plan: trial(plan, centre) for plan, centre in plans.items()}
    best = min(trials, key=lambda plan: trials[plan].least_nats)
    return Arm(field, at_rate(recipe, trials[best].lr), best, tuple(trials.values()))


@dataclass(frozen=True)
class Difference:
    """Loss of one arm minus another's on test documents, nats per token: interval, and the mean by seed."""

    interval: Interval
    by_seed: tuple[float, ...]


def difference(worse: Sequence[Ran], better: Sequence[Ran], resamples: int) -> Difference:
    """Compare runs seed by seed and document by document; the interval resamples documents."""
    documents = list(better[0].test_nats)
    by_seed = [
        [one.test_nats[d] - other.test_nats[d] for d in documents]
        for one, other in zip(worse, better, strict=True)
    ]
    means = [sum(row) / len(row) for row in by_seed]
    over_seeds = [sum(column) / len(column) for column in zip(*by_seed, strict=True)]
    return Difference(bootstrap(over_seeds, documents, resamples=resamples), tuple(means))
