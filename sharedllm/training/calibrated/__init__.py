"""A trained model to trits, by what it does with text: error feedback, two planes, and repair.

What must not happen here: reading a test split; any choice by one; writing a model's file (``store.ternary``
does). Calibration text is the training split of the base domains, stopping is decided on their validation.

Bets that rest on this room: b013 (a base made ternary after training).
"""

from __future__ import annotations

from sharedllm.training.calibrated.feedback import Matrix, damped, fed_back, group_of, objective, rounded
from sharedllm.training.calibrated.quantise import SCHEMES, Effort, Quantised, quantise
from sharedllm.training.calibrated.repair import Budget, Repaired, repaired
from sharedllm.training.calibrated.texts import Texts, base_texts, random_texts, shuffled_texts

__all__ = [
    "SCHEMES",
    "Budget",
    "Effort",
    "Matrix",
    "Quantised",
    "Repaired",
    "Texts",
    "base_texts",
    "damped",
    "fed_back",
    "group_of",
    "objective",
    "quantise",
    "random_texts",
    "repaired",
    "rounded",
    "shuffled_texts",
]
