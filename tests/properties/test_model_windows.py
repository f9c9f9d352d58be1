"""Windows cut any document so that no token is scored twice or never."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sharedllm.model import windows

lengths, sizes = st.integers(0, 3000), st.integers(2, 700)


@given(lengths, sizes)
def test_every_token_after_the_first_is_scored_exactly_once(length: int, size: int) -> None:
    scored = [at for window in windows(length, size) for at in range(window.first, window.stop)]
    assert scored == list(range(1, length))


@given(lengths, sizes)
def test_no_window_is_longer_than_asked_or_leaves_the_document(length: int, size: int) -> None:
    cut = windows(length, size)
    assert all(0 <= w.start < w.first < w.stop <= length and w.stop - w.start <= size for w in cut)


@given(lengths, sizes)
def test_every_window_but_the_first_gives_half_a_window_of_context(length: int, size: int) -> None:
    assert all(w.first - w.start >= size // 2 for w in windows(length, size)[1:])
