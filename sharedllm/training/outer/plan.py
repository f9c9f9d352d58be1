"""What happens in a simulated joint training: who works, lies, leaves, is cut off, and how they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sharedllm.errors import BadRecipe
from sharedllm.training.outer.compression import CODECS, Codec

__all__ = ["OWN_DATA_ATTACKS", "Away", "Cut", "Plan"]

OWN_DATA_ATTACKS = ("label-flip", "stale")
"""Lies that need the liar's own text or past; every other name is one of ``sharedllm.robust.ATTACKS``."""


@dataclass(frozen=True)
class Away:
    """A worker is gone in rounds [``start``, ``stop``); it returns with the others' weights and no past."""

    worker: int
    start: int
    stop: int


@dataclass(frozen=True)
class Cut:
    """In rounds [``start``, ``stop``) the workers of ``side`` and all others do not hear each other."""

    side: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """``workers`` take ``inner_steps`` each, send what came of it as ``codec`` says, and step together.

    ``rule`` aggregates and is told to survive ``assumed_liars``; the workers ``liars`` really lie, as
    ``attack`` says. ``levels`` "random" sends 2-bit messages whose levels mean nothing, a control. Raises
    ``BadRecipe`` for a plan that can't be carried out.
    """

    workers: int
    inner_steps: int
    codec: Codec = "fp32"
    feedback: bool = True
    levels: Literal["own", "random"] = "own"
    rule: str = "mean"
    assumed_liars: int = 0
    liars: tuple[int, ...] = ()
    attack: str = "sign-flip"
    outer_lr: float = 0.7
    outer_momentum: float = 0.9
    away: tuple[Away, ...] = ()
    cuts: tuple[Cut, ...] = ()

    def __post_init__(self) -> None:
        if self.workers < 1 or self.inner_steps < 1 or self.assumed_liars < 0:
            raise BadRecipe(
                f"{self.workers} workers with {self.inner_steps} steps a round and {self.assumed_liars} "
                "assumed liars can't train; give at least one worker and one step."
            )
        if self.codec not in CODECS or (self.levels == "random" and self.codec != "2bit"):
            raise BadRecipe(
                f"Messages can't be {self.codec} with {self.levels} levels; the codecs are "
                f"{', '.join(CODECS)}, and 2bit alone has random levels."
            )
        named = {
            *self.liars,
            *(gone.worker for gone in self.away),
            *(w for cut in self.cuts for w in cut.side),
        }
        if unknown := sorted(named - set(range(self.workers))):
            raise BadRecipe(f"The plan names worker {unknown[0]}; there are 0 to {self.workers - 1}.")

    def groups(self, round_: int) -> list[list[int]]:
        """Say who hears whom in a round: disjoint groups of the workers that are there, none empty."""
        there = [w for w in range(self.workers) if not _any_holds(self.away, round_, w)]
        sides: dict[tuple[bool, ...], list[int]] = {}
        for worker in there:
            cut = tuple(worker in c.side for c in self.cuts if c.start <= round_ < c.stop)
            sides.setdefault(cut, []).append(worker)
        return list(sides.values())


def _any_holds(away: Sequence[Away], round_: int, worker: int) -> bool:
    return any(gone.worker == worker and gone.start <= round_ < gone.stop for gone in away)
