"""One inner step between averages against many: at equal tokens, and at no more bytes (b050, b062).

| arm | inner steps H | what it may spend |
|---|---:|---|
| many | ``many`` | all tokens; a message every ``many`` steps |
| one | 1 | all tokens; a message every step |
| thrifty | 1 | no more bytes than ``many`` |
| alone | | one worker's tokens, and no message |

The thrifty arm sends the largest numbers of each update (topk, a 200th of the bytes) at all tokens, or whole
updates for as many steps as ``many`` has rounds: what is better on validation text.

Every arm has its own rate and chooses between plain averaging and Nesterov's outer step; each keeps the
weights that were best on validation text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sharedllm.bets.rounds.arms import Arm, chosen
from sharedllm.bets.rounds.field import Field
from sharedllm.bets.rounds.runs import Ran
from sharedllm.bets.runner import progress
from sharedllm.errors import BadRecipe
from sharedllm.training import Recipe
from sharedllm.training.outer import Away, Plan

__all__ = ["OUTERS", "Duel", "duel", "outers"]

OUTERS = {(1.0, 0.0): (1.6e-2, 8e-3), (0.7, 0.5): (8e-3, 8e-3), (0.7, 0.9): (1e-3, 4e-3)}
"""Outer rates and momenta: the mean of all weights, DiLoCo's step with a shorter memory, and DiLoCo's own;
each with the inner rates that AdamW's sweep begins at, for one inner step and for many."""


@dataclass(frozen=True)
class Duel:
    """The arms by name and their runs, one to a seed."""

    arms: dict[str, Arm]
    runs: dict[str, list[Ran]]

    @property
    def on_edge(self) -> int:
        """Count the arms whose rate has no worse one on some side."""
        return sum(arm.at_edge for arm in self.arms.values())

    @property
    def thrifty_share(self) -> float:
        """Bytes that the thrifty arm sent over those that ``many`` sent."""
        return self.runs["thrifty"][0].points[-1].sent_bytes / self.runs["many"][0].points[-1].sent_bytes


def outers(workers: int, inner_steps: int) -> dict[Plan, float]:
    """Give a plan for every outer step, with the rate that its sweep begins at."""
    return {
        Plan(workers, inner_steps, outer_lr=lr, outer_momentum=momentum): centres[inner_steps > 1]
        for (lr, momentum), centres in OUTERS.items()
    }


def duel(
    field: Field, recipe: Recipe, many: int, *, seeds: Sequence[int], tuning_seed: int, most: int
) -> Duel:
    """Tune the arms with ``tuning_seed``, at most ``most`` runs for each outer step, and run them.

    Raises ``BadRecipe`` when steps do not divide, or judging seeds hold the tuning one.
    """
    if tuning_seed in seeds:
        raise BadRecipe(f"Seed {tuning_seed} tunes, so it can't judge; give another.")

    def arm(how: Recipe, plans: Mapping[Plan, float]) -> Arm:
        return chosen(field, how, plans, most=most, seed=tuning_seed)

    short = dataclasses.replace(recipe, tokens=recipe.steps // many * recipe.tokens_per_step)
    gone = tuple(Away(worker, 0, recipe.steps) for worker in range(1, field.workers))
    lone = Plan(field.workers, many, outer_lr=1.0, outer_momentum=0.0, away=gone)
    arms = {
        "many": arm(recipe, outers(field.workers, many)),
        "one": arm(recipe, outers(field.workers, 1)),
        "alone": arm(recipe, {lone: OUTERS[1.0, 0.0][1]}),
    }
    few_numbers = {dataclasses.replace(arms["one"].plan, codec="topk"): arms["one"].recipe.lr}
    arms["thrifty"] = min(
        arm(recipe, few_numbers),
        arm(short, outers(field.workers, 1)),
        key=lambda tried: tried.validation_nats,
    )
    runs = {name: arm.runs(seeds) for name, arm in progress(list(arms.items()), "arms run")}
    return Duel(arms, runs)
