"""Documents and splits: nothing is lost, nothing is in two places, and names decide."""

from __future__ import annotations

import struct
import zlib

from hypothesis import given
from hypothesis import strategies as st

from sharedllm.corpus.document import SPLITS, Book, book, clean, gather
from sharedllm.corpus.domains import divide_by_hash
from sharedllm.corpus.novels import records, strings
from sharedllm.training import beginning

parts = st.lists(st.tuples(st.text(max_size=5), st.text(max_size=40)), max_size=30)
names = st.sets(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=30)


@given(parts, st.integers(1, 100))
def test_gathering_loses_and_reorders_nothing(given_parts: list[tuple[str, str]], least: int) -> None:
    assert "".join(text for _, text in gather(given_parts, least)) == "".join(text for _, text in given_parts)


@given(parts, st.integers(1, 100))
def test_gathered_documents_hold_enough(given_parts: list[tuple[str, str]], least: int) -> None:
    gathered = gather(given_parts, least)
    assert len(gathered) <= 1 or all(len(text.encode()) >= least for _, text in gathered)


@given(st.text())
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(names)
def test_a_split_assigns_each_book_once(found: set[str]) -> None:
    split = divide_by_hash(_books(found))
    assert sorted(d.id for of in SPLITS for d in split[of]) == sorted(f"{name}/01" for name in found)


@given(names, names)
def test_a_book_keeps_its_side_when_others_come(found: set[str], more: set[str]) -> None:
    before, after = divide_by_hash(_books(found)), divide_by_hash(_books(found | more))
    for split in SPLITS:
        assert {d.id for d in before[split]} <= {d.id for d in after[split]}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20))
def test_strings_survive_rs_format(lines: list[str]) -> None:
    data = b"X\n" + struct.pack(">3i", 2, 0x040200, 0x020300) + struct.pack(">2i", 16, len(lines))
    for line in lines:
        data += struct.pack(">2i", 0x40009, len(line.encode())) + line.encode()
    (record,) = records(struct.pack(">i", len(data)) + zlib.compress(data))
    assert strings(record) == lines


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 50))
def test_the_beginning_of_a_text_is_a_prefix_that_fits(text: str, at_most: int) -> None:
    cut = beginning(text, at_most)
    assert text.startswith(cut)
    assert len(cut.encode()) <= at_most


def _books(found: set[str]) -> dict[str, Book]:
    return {name: book(name, "made up", [("title", f"text of {name}\n")]) for name in sorted(found)}
