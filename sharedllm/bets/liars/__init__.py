"""Liars among those who share their updates: what each rule makes of norm adapters, and of training, then.

What must not happen here: an attack tuned on one rule and charged to another, a choice on held-out text, a
verdict. Bets: b044 (training) and b103 (norm adapters).
"""

from __future__ import annotations

from sharedllm.bets.liars.adapters import as_adapter, as_vector, independent_p, pooled_workers, user_workers
from sharedllm.bets.liars.harm import Harm, attacked, error_curve, harm, ratio
from sharedllm.bets.liars.scoring import losses_under_attack
from sharedllm.bets.liars.training import CAP_NATS, Multiple, beset, disturbed, multiple

__all__ = [
    "CAP_NATS",
    "Harm",
    "Multiple",
    "as_adapter",
    "as_vector",
    "attacked",
    "beset",
    "disturbed",
    "error_curve",
    "harm",
    "independent_p",
    "losses_under_attack",
    "multiple",
    "pooled_workers",
    "ratio",
    "user_workers",
]
