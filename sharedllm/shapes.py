"""The letters that tensor names end with; ``h_BTD`` is hidden states by batch, time and width.

| letter | dimension                    | letter | dimension             |
|--------|------------------------------|--------|-----------------------|
| B      | batch                        | V      | vocabulary            |
| T      | time (tokens)                | H      | heads                 |
| S      | cached positions (keys)      | K      | key/value heads       |
| D      | model width                  | E      | experts               |
| C      | width of one head            | N      | specialists           |
| F      | feed-forward width           | U      | users                 |
| L      | layers                       | G      | groups, norms' gains  |

Quantities carry their unit: ``_s``, ``_ms``, ``_bytes``, ``_nats``, ``_tok_per_s``. Losses are nats per token
*and* bits per byte: ``bits_per_byte = nats / (ln 2 · bytes)``.
"""

from __future__ import annotations

import math

__all__ = ["NATS_PER_BIT", "bits_per_byte"]

NATS_PER_BIT = math.log(2.0)


def bits_per_byte(total_nats: float, total_bytes: int) -> float:
    """Convert a total loss in nats over a text of ``total_bytes`` UTF-8 bytes to bits per byte.

    Tokenizer-neutral (nanochat's ``loss_eval``). Raises ``ValueError`` for an empty text.
    """
    if total_bytes <= 0:
        raise ValueError(f"bits per byte of {total_bytes} bytes is undefined; give a non-empty text.")
    return total_nats / (NATS_PER_BIT * total_bytes)
