"""For every log: roots and proofs are those of the RFC's recursion, and nothing else verifies."""

from __future__ import annotations

import functools
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedllm.attribution.log import verify_consistency, verify_inclusion
from sharedllm.attribution.log.hashing import leaf_hash, node_hash, root
from sharedllm.attribution.log.proofs import consistency, inclusion
from sharedllm.attribution.log.tiles import Tree, bundle, unbundle
from sharedllm.errors import BadLog

SIZES = st.integers(1, 700)


@functools.cache
def mth(start: int, stop: int) -> bytes:
    """MTH(D[start:stop]) of RFC 6962, §2.1, for the entries b"0", b"1", …"""
    n = stop - start
    if n == 0:
        return hashlib.sha256(b"").digest()
    if n == 1:
        return leaf_hash(b"%d" % start)
    k = half(n)
    return hashlib.sha256(b"\x01" + mth(start, start + k) + mth(start + k, stop)).digest()


def half(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def path(m: int, start: int, stop: int) -> list[bytes]:
    """PATH(m, D[start:stop]) of §2.1.1."""
    n = stop - start
    if n == 1:
        return []
    k = half(n)
    if m < k:
        return [*path(m, start, start + k), mth(start + k, stop)]
    return [*path(m - k, start + k, stop), mth(start, start + k)]


def subproof(m: int, start: int, stop: int, known: bool) -> list[bytes]:
    """SUBPROOF(m, D[start:stop], known) of §2.1.2."""
    n = stop - start
    if m == n:
        return [] if known else [mth(start, stop)]
    k = half(n)
    if m <= k:
        return [*subproof(m, start, start + k, known), mth(start + k, stop)]
    return [*subproof(m - k, start + k, stop, False), mth(start, start + k)]


@functools.cache
def tree(size: int) -> tuple[Tree, dict[tuple[int, int], bytes]]:
    return Tree().extended([leaf_hash(b"%d" % i) for i in range(size)])


def nodes(size: int):
    grown, tiles = tree(size)
    return lambda level, index: grown.node(level, index, lambda *at: tiles[at])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[int, int]:
    new = draw(SIZES)
    return draw(st.integers(1, new)), new


@given(SIZES)
def test_a_root_is_the_recursions(size):
    assert root(size, nodes(size)) == mth(0, size)


@given(SIZES, st.lists(st.integers(1, 300), max_size=4))
def test_it_does_not_matter_how_a_tree_grew(size, batches):
    grown = Tree()
    cuts = [*batches, size]
    for upto in cuts:
        leaves = [leaf_hash(b"%d" % i) for i in range(grown.size, max(grown.size, min(upto, size)))]
        grown, _ = grown.extended(leaves)
    strip = [edge for edge in grown.edges if edge]
    assert (grown.size, strip) == (size, [edge for edge in tree(size)[0].edges if edge])


@given(st.integers(0, 3))
def test_an_edge_can_be_made_again_from_full_tiles(tiles):
    grown, full = tree(tiles * 256)
    again = Tree.of_full(tiles, lambda *at: full[at])
    assert [edge for edge in again.edges if edge] == [edge for edge in grown.edges if edge]


@given(pairs())
def test_an_inclusion_proof_is_the_recursions_and_verifies(pair):
    index, size = pair[0] - 1, pair[1]
    made = inclusion(index, size, nodes(size))
    assert made == path(index, 0, size)
    verify_inclusion(leaf_hash(b"%d" % index), index, size, made, mth(0, size))


@given(pairs())
def test_a_consistency_proof_is_the_recursions_and_verifies(pair):
    old, new = pair
    made = consistency(old, new, nodes(new))
    assert made == subproof(old, 0, new, True)
    verify_consistency(old, mth(0, old), new, mth(0, new), made)


@given(pairs(), st.data())
def test_no_other_leaf_place_size_or_hash_is_included(pair, data):
    index, size = pair[0] - 1, pair[1]
    made, leaf = path(index, 0, size), leaf_hash(b"%d" % index)
    what = data.draw(st.sampled_from(["leaf", "index", "root", "path", "shorter", "longer"]))
    if what == "leaf":
        leaf = leaf_hash(b"another")
    elif what == "index":
        index = data.draw(st.integers(-2, size + 2).filter(lambda i: i != index))
    elif what == "path" and made:
        made[data.draw(st.integers(0, len(made) - 1))] = bytes(32)
    elif what == "shorter" and made:
        made.pop(data.draw(st.integers(0, len(made) - 1)))
    elif what == "longer":
        made.insert(data.draw(st.integers(0, len(made))), bytes(32))
    top = mth(0, size) if what not in ("root",) else bytes(32)
    changed = (leaf, index, made, top) != (
        leaf_hash(b"%d" % (pair[0] - 1)),
        pair[0] - 1,
        path(pair[0] - 1, 0, size),
        mth(0, size),
    )
    if changed:
        with pytest.raises(BadLog):
            verify_inclusion(leaf, index, size, made, top)


@given(pairs(), st.data())
def test_a_log_that_lost_or_changed_an_entry_has_no_consistency_proof(pair, data):
    old, new = pair
    forged = data.draw(st.integers(0, old - 1))
    leaves = [leaf_hash(b"forged" if i == forged else b"%d" % i) for i in range(new)]
    grown, tiles = Tree().extended(leaves)
    lying = lambda level, index: grown.node(level, index, lambda *at: tiles[at])  # noqa: E731
    with pytest.raises(BadLog):
        verify_consistency(old, mth(0, old), new, root(new, lying), consistency(old, new, lying))


@given(pairs())
def test_a_shorter_log_extends_no_longer_one(pair):
    old, new = pair
    if old < new:
        with pytest.raises(BadLog, match="rolled back"):
            verify_consistency(new, mth(0, new), old, mth(0, old), [])


def test_anything_extends_the_empty_log_and_nothing_but_itself_is_empty():
    empty = hashlib.sha256(b"").digest()
    verify_consistency(0, empty, 3, mth(0, 3), [])
    with pytest.raises(BadLog):
        verify_consistency(0, bytes(32), 3, mth(0, 3), [])


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_comes_back(entries):
    assert unbundle(bundle(entries)) == entries


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5), st.data())
def test_a_bundle_cut_inside_an_entry_is_refused(entries, data):
    whole = bundle(entries)
    ends = {len(bundle(entries[:i])) for i in range(len(entries) + 1)}
    cut = data.draw(st.integers(0, len(whole)).filter(lambda n: n not in ends))
    with pytest.raises(BadLog, match="cut off"):
        unbundle(whole[:cut])


@given(st.binary(min_size=64, max_size=64))
def test_a_leaf_is_never_a_node(data):
    assert leaf_hash(data) != node_hash(data[:32], data[32:])
