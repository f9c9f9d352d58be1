"""A joint training as a person asks for it: its text, its budget, its record, and the same training alone.

*Covered*: the comparison has equal tokens, equal batches, the same recipe and the same text. *Not covered*:
equal time (K workers take K times fewer steps each), and a rate tuned for either side.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from sharedllm.errors import BadRecipe
from sharedllm.model import TOY_CONFIG, Config, Transformer
from sharedllm.store import atomic, cached, canonical_json
from sharedllm.training.base import Prepared, domain_losses, prepare
from sharedllm.training.loop import OnStep, duplicate, time_steps, train
from sharedllm.training.recipe import TOY, Recipe

__all__ = [
    "JOINT_BASES",
    "JointBase",
    "Record",
    "alone",
    "joint_recipe",
    "prepare_joint",
    "rounds_in",
    "usual_rounds",
]

JointBase = Literal["toy", "small"]
JOINT_BASES: tuple[JointBase, ...] = get_args(JointBase)

_SMALL = dataclasses.replace(TOY_CONFIG, width=64, layers=2, heads=2, kv_heads=2, experts=4)
_CONFIGS: dict[str, Config] = {"toy": TOY_CONFIG, "small": _SMALL}
_FORMAT = 1


def prepare_joint(base: str, seed: int) -> Prepared:
    """Return text, tokenizer and untrained weights of ``base``, the same on every machine.

    Raises ``BadRecipe`` for a base that is not trained jointly, and what fetching the text raises.
    """
    if base not in JOINT_BASES:
        raise BadRecipe(f"{base!r} is not trained jointly; there are {', '.join(JOINT_BASES)}.")
    prepared = prepare("toy", seed=seed)
    torch.manual_seed(seed)
    config = dataclasses.replace(_CONFIGS[base], vocab_size=prepared.tokenizer.vocab_size)
    return dataclasses.replace(prepared, model=Transformer(config))


def joint_recipe(base: str, rounds: int, inner_steps: int) -> Recipe:
    """Return the inner recipe of one worker, whose schedule ends with the last round."""
    return dataclasses.replace(TOY, name=base, tokens=rounds * inner_steps * TOY.tokens_per_step)


def usual_rounds(workers: int, inner_steps: int) -> int:
    """Return how many rounds spend the toy recipe's tokens, over all workers."""
    return max(1, TOY.steps // (workers * inner_steps))


def rounds_in(
    seconds: float,
    prepared: Prepared,
    workers: int,
    inner_steps: int,
    cores: int,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Return how many rounds fit into ``seconds``, where each worker has a core or its share of one.

    Raises ``BadRecipe`` when not even one does.
    """
    recipe = dataclasses.replace(TOY, tokens=TOY.tokens_per_step * 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone_s = time_steps(duplicate(prepared.model), prepared.streams, recipe, clock)
    finally:
        torch.set_num_threads(threads)
    round_s = alone_s * inner_steps * max(1.0, workers / cores)
    if seconds < round_s:
        raise BadRecipe(
            f"A round of {inner_steps} steps by {workers} workers takes {round_s:.0f} s here, but the budget "
            f"is {seconds:.0f} s; give more time or fewer --inner-steps."
        )
    return int(seconds / round_s)


def alone(prepared: Prepared, recipe: Recipe, seed: int, on_step: OnStep | None) -> dict[str, float]:
    """Train ``prepared`` in one process and return its validation loss per domain, in bits per byte.

    Computed once for each recipe, text and seed. Raises ``BadRecipe`` when it diverges.
    """
    key: dict[str, Any] = {
        "format": _FORMAT,
        "config": prepared.model.config.to_dict(),
        "recipe": recipe.to_dict(),
        "text": prepared.streams.sha256,
        "seed": seed,
    }

    def compute(folder: Path) -> None:
        model = duplicate(prepared.model)
        train(model, prepared.streams, recipe, seed=seed, on_step=on_step)
        losses = domain_losses(model, prepared.tokenizer, "validation", window=recipe.window)
        (folder / "validation.json").write_bytes(canonical_json(losses))

    found: dict[str, float] = json.loads((cached("alone", key, compute) / "validation.json").read_bytes())
    return found


@dataclass
class Record:
    """What happened in each round, kept in a file so that a resumed training can tell all of it."""

    path: Path
    rounds: dict[int, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read the record at ``path``, or begin one."""
        if not path.exists():
            return cls(path)
        return cls(path, {int(number): told for number, told in json.loads(path.read_bytes()).items()})

    def add(self, told: dict[str, Any]) -> bool:
        """Note a round; returns whether it is the first time that anybody tells of it."""
        known = self.rounds.get(told["round"])
        if known is not None and known["generation"] >= told["generation"]:
            return False
        self.rounds[told["round"]] = told
        return True

    def write(self) -> None:
        """Write the file. Raises ``WriteFailed``."""
        data = {str(number): told for number, told in self.rounds.items()}
        atomic.write_bytes(self.path, canonical_json(data))

    @property
    def message_bytes(self) -> int:
        """What all members wrote in all rounds; an all-gather carries it to each of the others."""
        return sum(told["message_bytes"] * len(told["members"]) for told in self.rounds.values())

    @property
    def workers_rounds(self) -> int:
        """Rounds of one worker, over all workers: the updates that were heard."""
        return sum(len(told["members"]) for told in self.rounds.values())

    @property
    def sent_bytes(self) -> int:
        """What the sockets of those who told of a round first sent in it, over all rounds."""
        return sum(told["sent_bytes"] for told in self.rounds.values())

    def stretches(self) -> list[tuple[int, int, tuple[int, ...]]]:
        """Return first round, last round and members, for each stretch of rounds with the same members."""
        found: list[tuple[int, int, tuple[int, ...]]] = []
        for number in sorted(self.rounds):
            members = tuple(self.rounds[number]["members"])
            if found and found[-1][2] == members:
                found[-1] = (found[-1][0], number, members)
            else:
                found.append((number, number, members))
        return found

    def workers(self) -> list[tuple[int, int, float | None, int]]:
        """Return of each worker: number, rounds, median distance from the step taken, and updates refused.

        The distance is in units of the median member's of that round; None where it has none.
        """
        numbers = sorted({number for told in self.rounds.values() for number in told["members"]})
        return [(number, *self._of(number)) for number in numbers]

    def _of(self, number: int) -> tuple[int, float | None, int]:
        there = [told for told in self.rounds.values() if number in told["members"]]
        away: Sequence[float] = [
            told["away"][told["members"].index(number)]
            for told in there
            if told["away"][told["members"].index(number)] is not None
        ]
        refused = sum(str(number) in told["unusable"] for told in there)
        return len(there), statistics.median(away) if away else None, refused
