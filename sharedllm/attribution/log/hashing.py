"""The Merkle tree of RFC 6962, §2.1: leaves and nodes hashed apart, so that neither can pass for the other.

A *node* is named by its level and its index: the root over the leaves ``[index · 2^level, (index + 1) ·
2^level)``, all of which exist. Every other subtree is made of such nodes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

__all__ = ["EMPTY_ROOT", "HASH_BYTES", "Nodes", "leaf_hash", "node_hash", "root", "split", "subtree"]

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
Nodes = Callable[[int, int], bytes]
"""Gives the hash of the node at a level and an index."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf: SHA-256 of 0x00 and the entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256 of 0x01 and both children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(size: int) -> int:
    """The largest power of two smaller than ``size`` (≥ 2): how many leaves are left of a tree's root."""
    return 1 << (size - 1).bit_length() - 1


def subtree(start: int, stop: int, nodes: Nodes) -> bytes:
    """The hash over leaves ``[start, stop)``, a range that the RFC's recursion comes to."""
    size = stop - start
    if size & (size - 1) == 0:
        return nodes(size.bit_length() - 1, start // size)
    middle = start + split(size)
    return node_hash(subtree(start, middle, nodes), subtree(middle, stop, nodes))


def root(size: int, nodes: Nodes) -> bytes:
    """The root hash of the first ``size`` leaves."""
    return subtree(0, size, nodes) if size else EMPTY_ROOT
