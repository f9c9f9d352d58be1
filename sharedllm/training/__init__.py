"""Training: from text to a base, from a base to specialists; every run repeats and resumes exactly.

What must not happen here: reading a validation or test split to train on, networking, any choice by the test
split. Adapters may use `optimizer` and nothing else of this room.

Bets that rest on this room: b004 and b018 (their specialists), b039 (training a collapsed model back), and
every bet in the toy regime (its base).
"""

from __future__ import annotations

from sharedllm.training.base import (
    BASES,
    Prepared,
    base,
    budget_for,
    domain_losses,
    keep,
    prepare,
    surroundings,
    train_base,
)
from sharedllm.training.data import Streams, encode
from sharedllm.training.evaluate import DocumentLoss, beginning, held_out, overall
from sharedllm.training.loop import OnStep, Report, Step, train
from sharedllm.training.optimizer import Muon, adamw, hidden_matrices, newton_schulz
from sharedllm.training.progress import live
from sharedllm.training.recipe import (
    SPECIALIST,
    THIRTY_M,
    THIRTY_M_TERNARY,
    TOY,
    TOY_TERNARY,
    Recipe,
)
from sharedllm.training.schedule import factor
from sharedllm.training.specialist import load_specialist, specialist

__all__ = [
    "BASES",
    "SPECIALIST",
    "THIRTY_M",
    "THIRTY_M_TERNARY",
    "TOY",
    "TOY_TERNARY",
    "DocumentLoss",
    "Muon",
    "OnStep",
    "Prepared",
    "Recipe",
    "Report",
    "Step",
    "Streams",
    "adamw",
    "base",
    "beginning",
    "budget_for",
    "domain_losses",
    "encode",
    "factor",
    "held_out",
    "hidden_matrices",
    "keep",
    "live",
    "load_specialist",
    "newton_schulz",
    "overall",
    "prepare",
    "specialist",
    "surroundings",
    "train",
    "train_base",
]
