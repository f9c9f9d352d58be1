"""A text is documents; documents belong to books; a split assigns whole books (or whole files), never chunks.

`Document` is the unit that evidence clusters by (a scene, a chapter, a passage of a long poem, a source
file), so neighbours below a minimum size are gathered: forty-byte scenes would weigh as much as whole acts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sharedllm.store import sha256_of

__all__ = ["SPLITS", "Book", "Document", "Domain", "Split", "User", "book", "clean", "gather"]

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_AT_LEAST_BYTES = 2_000


@dataclass(frozen=True)
class Document:
    """One scene, chapter, passage or source file, as plain UTF-8 text.

    ``source`` names the `Source` it comes from; ``sha256`` and ``n_bytes`` are those of the UTF-8 text.
    """

    id: str
    title: str
    text: str = field(repr=False)
    source: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class Book:
    """What a split may not cut: a play, a book of the Bible, a poem, a novel, a module."""

    id: str
    documents: tuple[Document, ...]


@dataclass(frozen=True)
class Domain:
    """A register of text that a specialist is trained on; ``sha256`` covers ids, splits and every text."""

    name: str
    train: tuple[Document, ...] = field(repr=False)
    validation: tuple[Document, ...] = field(repr=False)
    test: tuple[Document, ...] = field(repr=False)
    licence: str

    @property
    def sha256(self) -> str:
        return _digest(self.name, self)


@dataclass(frozen=True)
class User:
    """One real author, as the person an adapter is for; no domain holds any of these documents."""

    name: str
    author: str
    register: str
    train: tuple[Document, ...] = field(repr=False)
    validation: tuple[Document, ...] = field(repr=False)
    test: tuple[Document, ...] = field(repr=False)
    licence: str

    @property
    def sha256(self) -> str:
        return _digest(self.name, self)


def _digest(name: str, of: Domain | User) -> str:
    splits = {split: [[d.id, d.sha256] for d in getattr(of, split)] for split in SPLITS}
    return sha256_of({"name": name, "splits": splits})


def clean(text: str) -> str:
    """Unix line ends, no byte-order mark, no trailing blanks, at most one empty line in a row, one final
    newline.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def gather(parts: Iterable[tuple[str, str]], at_least_bytes: int = _AT_LEAST_BYTES) -> list[tuple[str, str]]:
    """Join consecutive ``(title, text)`` parts until each holds ``at_least_bytes``; a short tail joins the
    last one.

    Loses and reorders nothing: the concatenated texts stay the same, and the first title of each group is
    kept.
    """
    groups: list[tuple[str, list[str]]] = []
    open_bytes = at_least_bytes
    for title, text in parts:
        if open_bytes >= at_least_bytes:
            groups.append((title, []))
            open_bytes = 0
        groups[-1][1].append(text)
        open_bytes += len(text.encode())
    if len(groups) > 1 and open_bytes < at_least_bytes:
        groups[-2][1].extend(groups.pop()[1])
    return [(title, "".join(texts)) for title, texts in groups]


def book(
    id: str, source: str, parts: Sequence[tuple[str, str]], at_least_bytes: int = _AT_LEAST_BYTES
) -> Book:
    """Make the book ``id`` of ``(title, text)`` parts; documents are numbered in order: ``<id>/01``,
    ``<id>/02``.
    """
    documents = []
    kept = [(title, text) for title, text in parts if text.strip()]
    for number, (title, raw) in enumerate(gather(kept, at_least_bytes), start=1):
        text = clean(raw)
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()
        documents.append(Document(f"{id}/{number:02d}", title, text, source, len(data), digest))
    return Book(id, tuple(documents))
