"""Joint training: workers that train apart, send what came of it in few bytes, and step together.

What must not happen here: a vector that a receiver could not check, a byte that is not counted, a result
that another seed-equal run would not repeat (in one process), imports of ``nodes``.

Bets that rest on this room: b044 (liars), b050 and b062 (how many inner steps), b104 (two bits per number).
"""

from __future__ import annotations

from sharedllm.training.outer.compression import (
    CODECS,
    Codec,
    Coding,
    decode,
    encode,
    message_bytes,
    random_codes,
)
from sharedllm.training.outer.outer import Outer, put_weights, weights_of
from sharedllm.training.outer.plan import OWN_DATA_ATTACKS, Away, Cut, Plan
from sharedllm.training.outer.rounds import Outcome, Point, simulate
from sharedllm.training.outer.worker import seed_of

__all__ = [
    "CODECS",
    "OWN_DATA_ATTACKS",
    "Away",
    "Codec",
    "Coding",
    "Cut",
    "Outcome",
    "Outer",
    "Plan",
    "Point",
    "decode",
    "encode",
    "message_bytes",
    "put_weights",
    "random_codes",
    "seed_of",
    "simulate",
    "weights_of",
]
