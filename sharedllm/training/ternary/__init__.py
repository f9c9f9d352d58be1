"""Bases that are ternary from their first step: the forward pass sees only what the file will hold.

Rounding a trained model to ternary destroys it; training with rounded weights costs little (Nielsen and
Schneider-Kamp, 2407.09527, at 100 thousand to 48 million parameters). What must not happen here: rounding a
model that was trained in full precision, or a rule of rounding of its own; ``store.ternary`` has the one.

Bets that rest on this room: b102.
"""

from __future__ import annotations

from sharedllm.training.ternary.rest import as_stored, at_rest
from sharedllm.training.ternary.ste import restored_model, straight_through, ternary_weights
from sharedllm.training.ternary.twins import rows_not_ternary, twin_differences

__all__ = [
    "as_stored",
    "at_rest",
    "restored_model",
    "rows_not_ternary",
    "straight_through",
    "ternary_weights",
    "twin_differences",
]
