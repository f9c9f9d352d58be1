"""Domains: registers of text that specialists are trained on, and the mix that the toy base is trained on.

Splits follow whole books: plays, books of the Bible, works of verse, top-level modules, folders of
documentation. Within a split, documents are scenes, chapters, passages or files, so that a test has many
documents though it has few books. Test books of ``scripture`` are those without a parallel account elsewhere
(Samuel/Kings/Chronicles and the synoptic gospels retell each other), so that the training split does not hold
the answer.

No document of a user's books is in any domain. The base has met the users' *registers*, and other works of
the same two poets: ``drama`` is Shakespeare's comedies, histories and romances while his tragedies belong to
the user; ``verse`` is Milton's and Shakespeare's other poems while *Paradise Lost* belongs to the user.

*Covered*: exact and long-line overlap between what the base trains on and every held-out document (tests hold
both). *Not covered*: quotations and shared phrases between authors; what a pretrained model has read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from sharedllm.corpus.document import SPLITS, Book, Document, Domain, Split
from sharedllm.corpus.plays import plays
from sharedllm.corpus.poems import poems
from sharedllm.corpus.programs import library
from sharedllm.corpus.reference import expeyes, kernel
from sharedllm.corpus.scripture import scripture
from sharedllm.corpus.sources import source
from sharedllm.errors import UnknownName

__all__ = [
    "BASE_DOMAINS",
    "USER_MODULES",
    "USER_PLAYS",
    "USER_POEMS",
    "base_mix",
    "divide",
    "domain",
    "domains",
]

# Always available, so that the toy base can be trained again anywhere
BASE_DOMAINS = ("code", "scripture", "drama", "verse")

# What belongs to users (users.py) and therefore to no domain
USER_PLAYS = {
    "train": ("hamlet", "othello", "macbeth", "romeo-and-juliet", "coriolanus"),
    "validation": ("julius-caesar",),
    "test": ("king-lear", "antony-and-cleopatra"),
}
USER_POEMS = {
    "train": tuple(f"paradise-lost-{number}" for number in range(1, 8)),
    "validation": ("paradise-lost-8",),
    "test": ("paradise-lost-9", "paradise-lost-10"),
}
USER_MODULES = ("logging", "venv", "turtle", "turtledemo")

_TENTHS_VALIDATION, _TENTHS_TEST = 1, 2


def domains() -> list[str]:
    """Name the domains; those of `BASE_DOMAINS` are always available, the others need a Debian package."""
    return list(_MAKERS)


def domain(name: str, root: Path = Path("/")) -> Domain:
    """Return a domain's three splits. Raises ``UnknownName``, ``MissingSource``, ``DownloadFailed``."""
    if name not in _MAKERS:
        raise UnknownName(f"There is no domain {name!r}; the domains are {', '.join(_MAKERS)}.")
    return _MAKERS[name](root)


def base_mix() -> dict[str, tuple[Document, ...]]:
    """Return what the toy base trains on: the training split of each always-available domain, by name."""
    return {name: domain(name).train for name in BASE_DOMAINS}


def divide(
    books: Mapping[str, Book], validation: tuple[str, ...], test: tuple[str, ...]
) -> dict[Split, tuple[Document, ...]]:
    """Assign the named books to ``validation`` and ``test`` in that order, and all others to ``train``."""
    train = tuple(name for name in books if name not in validation and name not in test)
    names: dict[Split, tuple[str, ...]] = {"train": train, "validation": validation, "test": test}
    return {split: tuple(d for name in names[split] for d in books[name].documents) for split in SPLITS}


def divide_by_hash(books: Mapping[str, Book]) -> dict[Split, tuple[Document, ...]]:
    """Assign each book by a hash of its *name*: 70 % train, 10 % validation, 20 % test, whatever else exists.

    A module or folder so stays on its side when a new Python or kernel adds or removes others.
    """
    tenth = {name: int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 for name in books}
    validation = tuple(n for n in books if tenth[n] < _TENTHS_VALIDATION)
    test = tuple(n for n in books if _TENTHS_VALIDATION <= tenth[n] < _TENTHS_VALIDATION + _TENTHS_TEST)
    return divide(books, validation, test)


@cache
def _code(root: Path) -> Domain:
    books = {name: of for name, of in library().items() if name not in USER_MODULES}
    return Domain("code", **divide_by_hash(books), licence=source("stdlib").licence)


@cache
def _scripture(root: Path) -> Domain:
    splits = divide(scripture(), ("esther", "ecclesiastes", "romans"), ("ruth", "job", "acts"))
    return Domain("scripture", **splits, licence=source("bible").licence)


@cache
def _drama(root: Path) -> Domain:
    taken = {name for names in USER_PLAYS.values() for name in names}
    books = {name: of for name, of in plays().items() if name not in taken}
    splits = divide(books, ("as-you-like-it",), ("twelfth-night", "richard-ii"))
    return Domain("drama", **splits, licence=source("plays").licence)


@cache
def _verse(root: Path) -> Domain:
    taken = {name for names in USER_POEMS.values() for name in names}
    books = {name: of for name, of in poems().items() if name not in taken}
    test = tuple(f"paradise-regained-{number}" for number in range(1, 5))
    return Domain("verse", **divide(books, ("samson-agonistes",), test), licence=source("poems").licence)


@cache
def _technical(root: Path) -> Domain:
    return Domain("technical", **divide_by_hash(kernel(root)), licence=source("kernel").licence)


@cache
def _malayalam(root: Path) -> Domain:
    return Domain("malayalam", **divide(expeyes(root), ("4",), ("5", "6")), licence=source("expeyes").licence)


_MAKERS: dict[str, Callable[[Path], Domain]] = {
    "code": _code,
    "scripture": _scripture,
    "drama": _drama,
    "verse": _verse,
    "technical": _technical,
    "malayalam": _malayalam,
}
