"""A worker that lies: what it sends in place of its own update, from what it can really know.

A liar in a process of its own must announce its update before it hears the others', so it can't see theirs.
It guesses them: around its own honest update it lays the differences that it heard in the last round. All
liars of a run guess alike, as accomplices who send each other what they found.

*Covered*: every attack of ``sharedllm.robust``, flipped labels and stale updates. *Not covered*: liars that
break the protocol (see ``exchange``) or write to the meeting place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedllm.errors import BadRecipe
from sharedllm.robust import ATTACKS, aggregate, attack
from sharedllm.training.outer.compression import HEADER_BYTES
from sharedllm.training.outer.plan import OWN_DATA_ATTACKS
from sharedllm.training.outer.processes.settings import Settings

__all__ = ["Liar", "check_attack"]

_NO_NUMBERS = ("nan", "inf")
_ALONE = ("scale", "sign-flip", "gaussian", "ipm")


def check_attack(name: str) -> None:
    """Raise ``BadRecipe`` unless there is an attack called ``name``."""
    if name not in (*ATTACKS, *OWN_DATA_ATTACKS):
        raise BadRecipe(f"There is no attack {name!r}; there are {', '.join((*ATTACKS, *OWN_DATA_ATTACKS))}.")


@dataclass
class Liar:
    """``attack`` by one of ``liars`` accomplices; ``heard`` tells it what the others sent last."""

    settings: Settings
    attack: str
    liars: int
    _first_P: Tensor | None = None
    _others_HP: Tensor | None = None

    def lie(self, own_P: Tensor, round_: int) -> Tensor:
        """Return what is sent in place of ``own_P``."""
        if self._first_P is None:
            self._first_P = own_P
        if self.attack == "stale":
            return self._first_P
        if self.attack == "label-flip" or self.attack in _NO_NUMBERS:
            return own_P  # the lie is in the training, or in the bytes
        if self._others_HP is None and self.attack not in _ALONE:
            return own_P  # nothing was heard yet that it could hide behind
        guessed_HP = own_P[None] if self._others_HP is None else own_P + self._others_HP
        chance = torch.Generator().manual_seed(self.settings.seed + round_)
        lies_FP = attack(self.attack, guessed_HP, self.liars, generator=chance, rule=self._rule())
        return lies_FP[0].clamp(-1e30, 1e30)

    def damage(self, message: bytes) -> bytes:
        """Return the bytes that are sent in place of ``message``."""
        if self.attack not in _NO_NUMBERS:
            return message
        # every codec's scales and numbers read NaN from bytes of ones
        return message[:HEADER_BYTES] + b"\xff" * (len(message) - HEADER_BYTES)

    def heard(self, updates_KP: Tensor, own: int) -> None:
        """Remember how the others' updates differ from their mean."""
        usable = [
            update_P
            for rank, update_P in enumerate(updates_KP)
            if rank != own and math.isfinite(float(update_P.sum()))
        ]
        if usable:
            others_HP = torch.stack(usable)
            self._others_HP = others_HP - others_HP.mean(0)

    def _rule(self) -> Callable[[Tensor], Tensor]:
        how = self.settings

        def rule(vectors_KP: Tensor) -> Tensor:
            chance = torch.Generator().manual_seed(how.seed)
            return aggregate(vectors_KP, how.rule, min(how.liars, self.liars), generator=chance)

        return rule
