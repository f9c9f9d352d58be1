"""Users who share a base, a budget and a recipe: what every bet on personal adapters is made of.

A fit and a held-out loss depend on their inputs alone, so each is made once, kept by content and found
again by the next bet. Noise arms stop on text of their own kind, never on the author's, so that they keep
what noise taught them and the control can bite (b037's could not: its fits on noise all returned the base).

What must not happen here: choosing anything on held-out text, an arm with more tokens than another, a
verdict.
Bets: b010, b046, b049, b052, b054, b055, b060 and b061.
"""

from __future__ import annotations

from sharedllm.bets.personal.averaging import averaged, kinship_p
from sharedllm.bets.personal.circle import Circle
from sharedllm.bets.personal.compared import Compared, Pooled, compare, median_perplexity, share
from sharedllm.bets.personal.cost import bytes_and_nats, bytes_at_fp16, front, step_cpu_s
from sharedllm.bets.personal.ensemble import Ensemble, ensemble
from sharedllm.bets.personal.pairs import Pairs, pairwise
from sharedllm.bets.personal.repair import repair_losses
from sharedllm.bets.personal.rounding import FORMS, Rounded, round_weights, rounded_base
from sharedllm.bets.personal.scoring import SCORE_VERSION, scored

__all__ = [
    "FORMS",
    "SCORE_VERSION",
    "Circle",
    "Compared",
    "Ensemble",
    "Pairs",
    "Pooled",
    "Rounded",
    "averaged",
    "bytes_and_nats",
    "bytes_at_fp16",
    "compare",
    "ensemble",
    "front",
    "kinship_p",
    "median_perplexity",
    "pairwise",
    "repair_losses",
    "round_weights",
    "rounded_base",
    "scored",
    "share",
    "step_cpu_s",
]
