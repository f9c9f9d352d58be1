"""Ternary weights at rest: 1.6 bits each, in a file that opens by memory map and knows when it is damaged.

What must not happen here: training, and choosing trits by looking at text; that is ``training``'s, which
hands over what is to be written. What is restored is exactly what was rounded, bit for bit.

Bets that rest on this room: b013 (a ternary base), b102 (trained ternary), b105 (the entropy of trits).
"""

from __future__ import annotations

from sharedllm.store.ternary import coding
from sharedllm.store.ternary.file import DTYPE, SCHEMA, Opened, Table, Weight, is_ternary, read, write
from sharedllm.store.ternary.hidden import exactly, is_hidden, rounded
from sharedllm.store.ternary.inventory import Part, inventory
from sharedllm.store.ternary.rounding import Scale, exact, restored, ternarise, two_planes
from sharedllm.store.ternary.tensors import SteppedTensor, TernaryTensor
from sharedllm.store.ternary.trits import pack, packed_bytes, unpack

__all__ = [
    "DTYPE",
    "SCHEMA",
    "Opened",
    "Part",
    "Scale",
    "SteppedTensor",
    "Table",
    "TernaryTensor",
    "Weight",
    "coding",
    "exact",
    "exactly",
    "inventory",
    "is_hidden",
    "is_ternary",
    "pack",
    "packed_bytes",
    "read",
    "restored",
    "rounded",
    "ternarise",
    "two_planes",
    "unpack",
    "write",
]
