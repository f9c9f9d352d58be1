"""Small changes that make a base somebody's own: gains, low-rank updates, a token bias, or everything.

What must not happen in this room: writing to the base (a fit works on a twin that shares the frozen weights,
and ``applied`` puts every weight back bit for bit), choosing anything on a test split (learning rate, step
and strength are chosen on validation), or applying an adapter to a base it was not made for.

Bets: b037 and b046 (gains against full fine-tuning and LoRA), b001 (a specialist that is an adapter), b010,
b049, b052, b054, b055, b060 and b061 (its controls).
"""

from sharedllm.adapters import library
from sharedllm.adapters.apply import METHODS, applied
from sharedllm.adapters.bank import Bank, base_gains, delta_gains
from sharedllm.adapters.file import AT_REST, Adapter, Header, header, read, rounded, write
from sharedllm.adapters.fit import FIT_VERSION, Budget, Fit, fit
from sharedllm.adapters.sweep import CENTRES, Sweep, Trial, fit_cached, sweep

__all__ = [
    "AT_REST",
    "CENTRES",
    "FIT_VERSION",
    "METHODS",
    "Adapter",
    "Bank",
    "Budget",
    "Fit",
    "Header",
    "Sweep",
    "Trial",
    "applied",
    "base_gains",
    "delta_gains",
    "fit",
    "fit_cached",
    "header",
    "library",
    "read",
    "rounded",
    "sweep",
    "write",
]
