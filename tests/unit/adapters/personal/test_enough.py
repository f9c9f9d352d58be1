"""How much text is too little, and how much is said to be enough."""

from __future__ import annotations

import hashlib
import re

import pytest

from sharedllm.adapters.personal import Plan, parts, refuse_tiny
from sharedllm.corpus import Document
from sharedllm.errors import BadText

PLAN = Plan(window=320)


def encode(text: str) -> list[int]:
    return [len(word) for word in text.split()]


def manuscript(n_bytes: int) -> list[Document]:
    paragraphs = (f"Some text of paragraph {i}, which is about nothing at all.\n\n" for i in range(n_bytes))
    text = ""
    while len(text) < n_bytes:
        text += next(paragraphs)
    text = text[:n_bytes]
    return [Document("a", "a", text, "own", n_bytes, hashlib.sha256(text.encode()).hexdigest())]


def test_fewer_bytes_than_tokens_are_needed_are_refused_without_a_tokenizer():
    with pytest.raises(BadText, match=r"^1,999 bytes .* give about 14 kB\.$"):
        refuse_tiny(manuscript(1999))
    refuse_tiny(manuscript(2000))


@pytest.mark.parametrize(
    ("n_bytes", "why"), [(2000, "takes 2,000"), (10_000, "takes 2,000"), (12_500, "a window takes 321")]
)
def test_what_is_said_to_be_enough_is_enough(n_bytes, why):
    with pytest.raises(BadText, match=why) as refused:
        parts(encode, manuscript(n_bytes), PLAN, "norm")
    needed = re.search(r"Give about (\d+) kB", str(refused.value))
    assert needed is not None
    enough = parts(encode, manuscript(1000 * int(needed[1])), PLAN, "norm")
    assert len(enough.held_T) > PLAN.window


def test_word_counts_need_no_window():
    assert len(parts(encode, manuscript(12_500), PLAN, "unigram").held_T) <= PLAN.window
