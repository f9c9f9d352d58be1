"""Own text is split where it was written apart: whole documents are held out, never random chunks.

Many documents (a folder of notes): about a fifth of the text, in whole documents, judges the adapter; an
eighth chooses its settings; the rest is learnt from. Which ones is decided by a hash of what they hold, not
by name or date, so that nobody chose. Few documents (a manuscript): each is cut once at paragraphs, and its
last fifth judges.

What was held out of a cut document counts by section, a run of paragraphs of at least 1,000 bytes (less where
there is little text, so that about five remain, and where documents are so short that a section is more of
one than what is to be held out).

*Covered*: one text never lies on two sides. *Not covered*: sections of one document resemble each other more
than they resemble what the person will write next year, so an interval over them is narrower than one over
documents; the report says which it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from sharedllm.corpus.document import Document, gather
from sharedllm.errors import BadText

__all__ = ["VALIDATION", "Splits", "split"]

_TEST, VALIDATION = 0.20, 0.12
_SLACK = 1.3  # a split may be so much larger than asked, for the sake of whole documents
_LEAST_DOCUMENTS = 3
_SECTION_BYTES = (200, 1_000)
_SECTIONS = 5


@dataclass(frozen=True)
class Splits:
    """The three parts; ``unit`` says what was kept whole: ``document`` or ``section``."""

    train: tuple[Document, ...] = field(repr=False)
    validation: tuple[Document, ...] = field(repr=False)
    test: tuple[Document, ...] = field(repr=False)
    unit: str


def split(documents: Sequence[Document]) -> Splits:
    """Split by document where that leaves three or more to judge by, else by sections of each.

    Raises ``BadText`` when there are not even so many sections.
    """
    return _by_document(documents) or _by_section(documents)


def _by_document(documents: Sequence[Document]) -> Splits | None:
    total = sum(document.n_bytes for document in documents)
    rest = sorted(documents, key=lambda document: document.sha256)
    test = _taken(rest, _TEST * total)
    validation = _taken([d for d in rest if d not in test], VALIDATION * total)
    held = {document.sha256 for document in (*test, *validation)}
    if (
        len(test) < _LEAST_DOCUMENTS
        or sum(d.n_bytes for d in test) < _TEST * total / _SLACK
        or sum(d.n_bytes for d in validation) < VALIDATION * total / _SLACK
    ):
        return None
    train = tuple(document for document in documents if document.sha256 not in held)
    return Splits(train, tuple(validation), tuple(test), "document")


def _taken(documents: Sequence[Document], wanted_bytes: float) -> list[Document]:
    """Take documents in order until there is enough, passing over those that would be far too much."""
    taken: list[Document] = []
    n_bytes = 0
    for document in documents:
        if n_bytes >= wanted_bytes:
            break
        if n_bytes + document.n_bytes <= _SLACK * wanted_bytes:
            taken.append(document)
            n_bytes += document.n_bytes
    return taken


def _by_section(documents: Sequence[Document]) -> Splits:
    of_all = sum(document.n_bytes for document in documents)
    least, most = _SECTION_BYTES
    at_least_bytes = min(most, max(least, int(_TEST * of_all / _SECTIONS)))
    while (found := _cut(documents, at_least_bytes)) is None:
        if at_least_bytes == least:
            raise BadText(
                f"{of_all:,} bytes of text in {len(documents)} documents can't be split into a part to learn "
                f"from and {_LEAST_DOCUMENTS} sections to judge by; give more, with paragraphs or lines."
            )
        at_least_bytes = max(least, at_least_bytes // 2)
    return found


def _cut(documents: Sequence[Document], at_least_bytes: int) -> Splits | None:
    """Cut each document; None where the sections are too large for one of the three parts."""
    train: list[Document] = []
    validation: list[Document] = []
    test: list[Document] = []
    for document in documents:
        sections, at = _sections(document, at_least_bytes), 0
        total = sum(section.n_bytes for section in sections)
        for section in sections:
            middle = (at + section.n_bytes / 2) / total
            at += section.n_bytes
            part = test if middle > 1 - _TEST else validation if middle > 1 - _TEST - VALIDATION else train
            part.append(section)
    if not (train and validation) or len(test) < _LEAST_DOCUMENTS:
        return None
    return Splits(tuple(train), tuple(validation), tuple(test), "section")


def _sections(document: Document, at_least_bytes: int) -> list[Document]:
    parts = [("", piece) for piece in _pieces(document.text, 2 * at_least_bytes)]
    sections = []
    for number, (_, text) in enumerate(gather(parts, at_least_bytes), start=1):
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()
        sections.append(
            Document(f"{document.id}/{number:03d}", document.title, text, document.source, len(data), digest)
        )
    return sections


def _pieces(text: str, at_most_bytes: int) -> list[str]:
    """Cut a text at empty lines, and what is still long at line ends or ends of sentences; loses nothing."""
    pieces = re.split(r"(?<=\n\n)", text)
    for cut in (r"(?<=\n)", r"(?<=[.!?] )"):
        pieces = [
            part
            for piece in pieces
            for part in (re.split(cut, piece) if len(piece.encode()) > at_most_bytes else [piece])
        ]
    return [piece for piece in pieces if piece]
