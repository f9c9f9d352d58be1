"""Finished runs of joint training, kept by content: what b044, b050, b062 and b104 share is trained once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sharedllm.bets.rounds.field import Field
from sharedllm.store import atomic, cached, canonical_json
from sharedllm.training import Recipe
from sharedllm.training.outer import Plan, Point, put_weights, simulate

__all__ = ["ROUNDS_VERSION", "Ran", "ran"]

ROUNDS_VERSION = 1  # raise it when the same inputs give other losses: kept runs are then made again
_EVALUATIONS = 16
_FILE = "run.json"


@dataclass(frozen=True)
class Ran:
    """A run's curve on validation text, and the test losses of the weights that it was best with.

    ``points`` lack those that were not finite. ``best`` is the least of them, which early stopping would have
    kept, and ``test_nats`` its loss on every test document; a run without any has None and {}.
    """

    points: tuple[Point, ...]
    best: Point | None
    test_nats: Mapping[str, float]
    diverged: bool
    refused: int

    @property
    def validation_nats(self) -> float:
        """The loss that settings are chosen by; infinite where there was none."""
        return float("inf") if self.best is None else self.best.validation_nats

    @property
    def mean_test_nats(self) -> float:
        """The mean over test documents, nats per token."""
        return float(np.mean(list(self.test_nats.values()))) if self.test_nats else float("inf")


def ran(field: Field, recipe: Recipe, plan: Plan, seed: int) -> Ran:
    """Run, or read how the very same run went; raises what ``simulate`` raises.

    ``seed`` draws the weights, the batches and the lies.
    """
    key = {
        "field": field.key,
        "recipe": recipe.to_dict(),
        "plan": json.loads(json.dumps(dataclasses.asdict(plan))),
        "seed": seed,
        "evaluations": _EVALUATIONS,
        "version": ROUNDS_VERSION,
    }

    def compute(folder: Path) -> None:
        atomic.write_bytes(folder / _FILE, canonical_json(_made(field, recipe, plan, seed)))

    return _read(json.loads((cached("rounds", key, compute) / _FILE).read_bytes()))


def _made(field: Field, recipe: Recipe, plan: Plan, seed: int) -> dict[str, Any]:
    model = field.model(seed)
    outcome = simulate(
        model,
        field.streams,
        recipe,
        plan,
        seed=seed,
        validate=field.validation_nats,
        every_steps=max(plan.inner_steps, recipe.steps // _EVALUATIONS),
    )
    put_weights(model, outcome.best_P)
    points = [point for point in outcome.points if np.isfinite(point.validation_nats)]
    return {
        "points": [dataclasses.asdict(point) for point in points],
        "best": None if outcome.best is None else dataclasses.asdict(outcome.best),
        "test_nats": {} if outcome.best is None else field.test_nats(model.eval()),
        "diverged": outcome.diverged,
        "refused": outcome.refused,
    }


def _read(kept: dict[str, Any]) -> Ran:
    return Ran(
        points=tuple(Point(**point) for point in kept["points"]),
        best=None if kept["best"] is None else Point(**kept["best"]),
        test_nats=kept["test_nats"],
        diverged=kept["diverged"],
        refused=kept["refused"],
    )
