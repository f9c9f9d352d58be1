"""Where a log's hashes and entries lie as files (C2SP tlog-tiles), and the edge of the tree that grows.

A tile is 256 hashes of one level of tiles; the level above holds the root of each full tile. A bundle is
256 entries, each with two bytes of length before it. The last tile of each level, and the last bundle, may
be *partial*, and then say their width in their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sharedllm.attribution.log.hashing import EMPTY_ROOT, HASH_BYTES, node_hash, root
from sharedllm.errors import BadLog

__all__ = ["LARGEST_ENTRY_BYTES", "WIDTH", "Tree", "bundle", "bundle_path", "tile_path", "unbundle"]

WIDTH = 256
_LEVELS = 8
LARGEST_ENTRY_BYTES = 0xFFFF


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """Where the tile lies under a log's folder: ``tile/<L>/<N>``, with ``.p/<W>`` if it is partial."""
    return f"tile/{level}/{_number(index)}{_partial(width)}"


def bundle_path(index: int, width: int = WIDTH) -> str:
    """Where the entries of a level-0 tile lie."""
    return f"tile/entries/{_number(index)}{_partial(width)}"


def _partial(width: int) -> str:
    return "" if width == WIDTH else f".p/{width}"


def _number(index: int) -> str:
    parts = [f"{index % 1000:03d}"]
    while index := index // 1000:
        parts.append(f"x{index % 1000:03d}")
    return "/".join(reversed(parts))


def bundle(entries: Iterable[bytes]) -> bytes:
    """Write entries one after the other; raises ``BadLog`` for one that is too long."""
    written = bytearray()
    for entry in entries:
        if len(entry) > LARGEST_ENTRY_BYTES:
            raise BadLog(f"An entry of a log has at most {LARGEST_ENTRY_BYTES:,} bytes, not {len(entry):,}.")
        written += len(entry).to_bytes(2, "big") + entry
    return bytes(written)


def unbundle(data: bytes) -> list[bytes]:
    """Read what ``bundle`` wrote; raises ``BadLog`` for a bundle that ends in an entry."""
    entries, at = [], 0
    while at < len(data):
        stop = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if at + 2 > len(data) or stop > len(data):
            raise BadLog(f"A bundle of entries is cut off at byte {len(data):,}; restore it from a copy.")
        entries.append(data[at + 2 : stop])
        at = stop
    return entries


@dataclass(frozen=True)
class Tree:
    """The growing edge: the hashes of each level's partial tile, which with full tiles give every node.

    ``edges[L]`` holds the last ``(size >> 8·L) mod 256`` hashes of tile level L; ``peaks`` the largest nodes
    that make up the tree, from the left, as (level, hash), so that its root is a few hashes away.
    """

    size: int = 0
    edges: tuple[tuple[bytes, ...], ...] = ()
    peaks: tuple[tuple[int, bytes], ...] = ()

    @property
    def root(self) -> bytes:
        """The root hash."""
        if not self.peaks:
            return EMPTY_ROOT
        *others, (_, top) = self.peaks
        for _, left in reversed(others):
            top = node_hash(left, top)
        return top

    def extended(self, leaves: Sequence[bytes]) -> tuple[Tree, dict[tuple[int, int], bytes]]:
        """The tree with more leaf hashes, and the tiles that they filled, as bytes by (level, index)."""
        edges, full, peaks = [list(edge) for edge in self.edges], {}, list(self.peaks)
        for leaf in leaves:
            level, top = 0, leaf
            while peaks and peaks[-1][0] == level:
                top = node_hash(peaks.pop()[1], top)
                level += 1
            peaks.append((level, top))
        for number, leaf in enumerate(leaves, self.size):
            rising, level, index = leaf, 0, number
            while True:
                if level == len(edges):
                    edges.append([])
                edges[level].append(rising)
                if len(edges[level]) < WIDTH:
                    break
                full[level, index // WIDTH] = b"".join(edges[level])
                rising, edges[level] = root(WIDTH, _within(edges[level])), []
                level, index = level + 1, index // WIDTH
        return Tree(self.size + len(leaves), tuple(map(tuple, edges)), tuple(peaks)), full

    @classmethod
    def of_full(cls, tiles: int, tile: Callable[[int, int], bytes]) -> Tree:
        """The tree whose level 0 is ``tiles`` full tiles, given what reads a full tile by level and index."""
        edges: list[tuple[bytes, ...]] = [()]
        count, level = tiles, 0
        while count:
            first = count // WIDTH * WIDTH
            edges.append(tuple(root(WIDTH, _within(hashes(tile(level, i)))) for i in range(first, count)))
            count, level = count // WIDTH, level + 1
        size = tiles * WIDTH
        bare = cls(size, tuple(edges))
        levels = [level for level in reversed(range(size.bit_length())) if size >> level & 1]
        return cls(size, bare.edges, tuple((k, bare.node(k, (size >> k) - 1, tile)) for k in levels))

    def node(self, level: int, index: int, tile: Callable[[int, int], bytes]) -> bytes:
        """The hash of a node of this tree (see ``hashing``), reading full tiles where they are needed."""
        tile_level, within = divmod(level, _LEVELS)
        first = index << within
        number, column = divmod(first, WIDTH)
        held = self.size >> _LEVELS * tile_level
        if number == held // WIDTH:
            row: Sequence[bytes] = self.edges[tile_level]
        else:
            row = hashes(tile(tile_level, number))
        return root(1 << within, _within(row[column : column + (1 << within)]))


def hashes(tile: bytes) -> list[bytes]:
    """The hashes of a tile, in order."""
    return [tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)]


def _within(row: Sequence[bytes]) -> Callable[[int, int], bytes]:
    """The nodes over a row of hashes."""

    def node(level: int, index: int) -> bytes:
        if level == 0:
            return row[index]
        return node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))

    return node
