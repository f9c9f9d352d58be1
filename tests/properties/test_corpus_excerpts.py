"""Excerpts never overlap, never exceed the budget, and spread over documents."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedllm.corpus import Document, excerpts, sampled
from sharedllm.errors import MissingSource


def document(number: int, length: int) -> Document:
    text = "x" * length
    return Document(
        f"d{number}", f"d{number}", text, "made up", length, hashlib.sha256(text.encode()).hexdigest()
    )


def positions(text: str) -> list[int]:
    """A tokenizer whose tokens are their own positions, so that overlap can be seen."""
    return list(range(len(text)))


lengths = st.lists(st.integers(0, 400), min_size=1, max_size=20)


@given(lengths, st.integers(1, 3000), st.integers(1, 64))
def test_excerpts_stay_within_the_budget(sizes: list[int], total: int, window: int) -> None:
    if max(sizes) < 2:
        return
    cut = excerpts(positions, [document(i, n) for i, n in enumerate(sizes)], max(total, window), window)
    assert sum(len(e.tokens) - 1 for e in cut) <= max(total, window)


@given(lengths, st.integers(64, 3000), st.integers(1, 64))
def test_no_token_is_scored_twice(sizes: list[int], total: int, window: int) -> None:
    if max(sizes) < 2:
        return
    cut = excerpts(positions, [document(i, n) for i, n in enumerate(sizes)], total, window)
    scored = [(e.document, token) for e in cut for token in e.tokens[1:]]
    assert len(scored) == len(set(scored))


def test_documents_get_equal_numbers_of_windows() -> None:
    cut = excerpts(positions, [document(i, 1000) for i in range(4)], 1200, 100)
    assert [sum(e.document == f"d{i}" for e in cut) for i in range(4)] == [3, 3, 3, 3]


def test_documents_without_two_tokens_are_refused_by_sentence() -> None:
    with pytest.raises(MissingSource, match="no two tokens"):
        excerpts(positions, [document(0, 1)], 100, 10)


def test_a_sample_takes_whole_documents_from_all_over() -> None:
    taken = sampled(lambda text: [len(text)], [document(i, 10 + i) for i in range(10)], 60)
    assert taken == [10, 12, 14, 16, 18]
