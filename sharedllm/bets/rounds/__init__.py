"""Joint training on one field, tuned and kept: what every bet on open training is made of.

A run depends on its field, recipe, plan and seed alone, so each is made once, kept by content and found again
by the next bet.

What must not happen here: choosing anything on test text, an arm with more tokens than it says, a verdict.
Bets: b044, b050, b062 and b104.
"""

from __future__ import annotations

from sharedllm.bets.rounds.arms import Arm, Difference, at_rate, chosen, difference
from sharedllm.bets.rounds.duel import OUTERS, Duel, duel, outers
from sharedllm.bets.rounds.field import SMALL, STEP, Field, Shards
from sharedllm.bets.rounds.runs import ROUNDS_VERSION, Ran, ran
from sharedllm.bets.rounds.tuning import Tuned, tuned

__all__ = [
    "OUTERS",
    "ROUNDS_VERSION",
    "SMALL",
    "STEP",
    "Arm",
    "Difference",
    "Duel",
    "Field",
    "Ran",
    "Shards",
    "Tuned",
    "at_rate",
    "chosen",
    "difference",
    "duel",
    "outers",
    "ran",
    "tuned",
]
