"""Held-out text is whole documents, or the last part of each; the tests of any text are in properties."""

from __future__ import annotations

import hashlib

import pytest

from sharedllm.adapters.personal import split
from sharedllm.corpus import Document
from sharedllm.errors import BadText


def document(name: str, text: str) -> Document:
    data = text.encode()
    return Document(name, name, text, "own", len(data), hashlib.sha256(data).hexdigest())


def notes(count: int, n_bytes: int = 600) -> list[Document]:
    return [document(f"{i}", f"note {i} " + "x" * n_bytes) for i in range(count)]


def test_of_many_notes_whole_ones_are_held_out():
    made = split(notes(40))
    assert made.unit == "document"
    assert (len(made.test), len(made.validation), len(made.train)) == (8, 5, 27)


def test_names_and_order_do_not_choose_what_is_held_out():
    given = notes(40)
    renamed = [document(f"z{d.id}", d.text) for d in reversed(given)]
    assert {d.text for d in split(given).test} == {d.text for d in split(renamed).test}


def test_a_manuscript_gives_its_last_fifth_in_sections():
    whole = "".join(f"Paragraph {i}. " + "word " * 60 + "\n\n" for i in range(100))
    made = split([document("book", whole)])
    assert made.unit == "section"
    assert "".join(d.text for part in (made.train, made.validation, made.test) for d in part) == whole
    assert sum(d.n_bytes for d in made.test) == pytest.approx(0.20 * len(whole), abs=1_500)


def test_one_large_file_among_notes_is_not_held_out_whole():
    made = split([*notes(10), document("big", "Line of text.\n" * 5_000)])
    assert "big" not in {d.id for d in made.test}


def test_a_single_line_is_cut_at_ends_of_sentences():
    made = split([document("line", "This is a sentence. " * 2_000)])
    assert all(d.text.endswith(". ") for d in made.test[:-1])


def test_of_little_text_smaller_sections_judge():
    made = split([document("short", "A sentence of eight words, and a few more. " * 200)])
    assert len(made.test) >= 3


def test_what_has_no_place_to_cut_is_refused():
    with pytest.raises(BadText, match="50,000 bytes of text in 1 documents can't be split"):
        split([document("blob", "x" * 50_000)])


def test_of_a_few_short_notes_each_gives_its_end():
    # sections of 1,000 bytes would be larger than the end of any of them
    made = split([document(f"{i}", "A line of a note, long enough.\n" * 80 + str(i)) for i in range(8)])
    assert made.unit == "section"
    assert {d.id.split("/")[0] for d in made.test} == {str(i) for i in range(8)}
    assert made.validation
    assert sum(d.n_bytes for d in made.train) > 0.6 * 8 * 2_481
