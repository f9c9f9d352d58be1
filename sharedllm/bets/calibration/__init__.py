"""A base as trits that calibration chose, beside other forms of it: bytes, and bits per byte.

Every arm of trits is judged as it comes back from its file, and every byte of that file counts.
What must not happen here: an arm that saw a held-out document, or was chosen by one; a verdict.

Bet b013 rests on this room, and so does ``tests.benchmarks.wire.pareto``.
"""

from __future__ import annotations

from sharedllm.bets.calibration.arms import Arm, by_scheme, plain, stepped
from sharedllm.bets.calibration.reading import HeldOut, Rise, held_out_texts
from sharedllm.bets.calibration.texts import calibration_texts, shared_documents

__all__ = [
    "Arm",
    "HeldOut",
    "Rise",
    "by_scheme",
    "calibration_texts",
    "held_out_texts",
    "plain",
    "shared_documents",
    "stepped",
]
