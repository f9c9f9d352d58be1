"""Inclusion and consistency proofs of RFC 6962, §2.1.1 and §2.1.2, and their verification from hashes alone.

*Covered*: an entry that is not in the tree, at another place, or of another tree; a tree that lost, changed
or reordered what an earlier one held. *Not covered*: who made the tree (a signed checkpoint says that), and
two trees that nobody compares.
"""

from __future__ import annotations

from collections.abc import Sequence

from sharedllm.attribution.log.hashing import EMPTY_ROOT, Nodes, node_hash, split, subtree
from sharedllm.errors import BadLog

__all__ = ["consistency", "inclusion", "verify_consistency", "verify_inclusion"]


def inclusion(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """Prove that leaf ``index`` is in the tree of ``size`` leaves: ⌈log2 size⌉ hashes or fewer, leaf upwards.

    Raises ``BadLog`` for a leaf that the tree does not have.
    """
    if not 0 <= index < size:
        raise BadLog(f"A log of {size:,} entries has no entry {index:,}; ask for one that it holds.")
    path, low, high = [], 0, size
    while high - low > 1:
        middle = low + split(high - low)
        if index < middle:
            path.append(subtree(middle, high, nodes))
            high = middle
        else:
            path.append(subtree(low, middle, nodes))
            low = middle
    return path[::-1]


def consistency(old: int, new: int, nodes: Nodes) -> list[bytes]:
    """Prove that the first ``old`` leaves of the tree of ``new`` leaves are the tree of ``old`` leaves.

    Raises ``BadLog`` unless ``0 ≤ old ≤ new``.
    """
    if not 0 <= old <= new:
        raise BadLog(f"A log of {new:,} entries can't extend one of {old:,}; it was rolled back.")
    path, low, high = [], 0, new
    while 0 < old < high:
        middle = low + split(high - low)
        if old <= middle:
            path.append(subtree(middle, high, nodes))
            high = middle
        else:
            path.append(subtree(low, middle, nodes))
            low = middle
    if low > 0:
        path.append(subtree(low, high, nodes))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check ``path`` (RFC 9162, §2.1.3.2); raises ``BadLog`` unless ``leaf`` is entry ``index`` under
    ``root``.
    """
    number, last, made = index, size - 1, leaf
    fits = 0 <= index < size
    for sibling in path if fits else ():
        if last == 0:
            fits = False
            break
        if number & 1 or number == last:
            made = node_hash(sibling, made)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            made = node_hash(made, sibling)
        number, last = number >> 1, last >> 1
    if not fits or last != 0 or made != root:
        raise BadLog(
            f"The inclusion proof fails: what was given is not entry {index:,} of the log of {size:,} "
            "entries whose root was signed. The entry, its place, the proof or the checkpoint was changed."
        )


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check ``path`` (RFC 9162, §2.1.4.2); raises ``BadLog`` unless the new tree begins with the old one."""
    if new < old:
        raise BadLog(
            f"The log had {old:,} entries and now has {new:,}: it was rolled back. Don't trust what it says "
            "since; ask who keeps it."
        )
    if old == 0 or old == new:
        empty_is_empty = old > 0 or (old_root == EMPTY_ROOT and (new > 0 or new_root == EMPTY_ROOT))
        fits = not path and empty_is_empty and (old == 0 or old_root == new_root)
    else:
        fits = _consistent(old, old_root, new, new_root, path)
    if not fits:
        raise BadLog(
            f"The log of {new:,} entries does not begin with the {old:,} entries that were signed before: "
            "it was forked or rewritten, or the proof was changed."
        )


def _consistent(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    whole = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not whole:
        return False
    number, last = old - 1, new - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    before = after = whole[0]
    for sibling in whole[1:]:
        if last == 0:
            return False
        if number & 1 or number == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        number, last = number >> 1, last >> 1
    return last == 0 and before == old_root and after == new_root
