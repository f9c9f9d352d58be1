"""How small trits can be: their entropy, three coders that come near it, and what a flipped byte does.

What must not happen here: a coder that is judged without its own tables counted, or without decoding again
what it encoded. Bet b105 rests on this room, and so does ``tests.benchmarks.wire.packing``.
"""

from __future__ import annotations

from sharedllm.bets.packing.coders import CODERS, Coder
from sharedllm.bets.packing.entropy import Matrix, drawn, entropy_bits, rounded_blocks
from sharedllm.bets.packing.flips import Flips, flipped

__all__ = [
    "CODERS",
    "Coder",
    "Flips",
    "Matrix",
    "drawn",
    "entropy_bits",
    "flipped",
    "rounded_blocks",
]
