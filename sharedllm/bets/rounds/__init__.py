"""Joint training on one field, tuned and kept: what every bet on open training is made of.

A run depends on its field, recipe, plan and seed alone, so each is made once, kept by content and found again
by the next bet.

Muon inside against AdamW inside, in a pilot (four workers alike, 240 steps, plain averaging, one seed, least
validation loss in nats per token; Muon's other weights have AdamW at 0.016):

| H | AdamW at 0.002 / 0.004 / 0.008 / 0.016 | Muon at 0.01 / 0.02 / 0.04 |
|---:|---|---|
| 1 | – / 4.634 / – / 4.441 | 4.180 / 4.126 / 4.128 |
| 24 | 4.878 / – / 4.760 / 4.985 | 4.291 / 4.275 / 4.378 |

So Muon is ahead by 0.3 to 0.5 nats, and loses less by averaging seldom (0.15 against 0.32), as MuLoCo says of
larger models (arXiv 2505.23725). AdamW's rate for H = 1 is at the edge of what was tried.

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
