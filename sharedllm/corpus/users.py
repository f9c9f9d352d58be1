"""Users: real single authors, each with books to adapt to, a book to choose settings on, and held-out books.

| user | train | validation | test | split by |
|---|---|---|---|---|
| milton | *Paradise Lost* I–VII | VIII | IX, X (1667) | book; documents are verse paragraphs |
| shakespeare | five tragedies | *Julius Caesar* | *King Lear*, *Antony and Cleopatra* | play; scenes |
| sajip | ``distlib`` | ``gnupg`` | ``logging``, ``venv`` | package; definitions |
| lingl | ``turtle`` | half the demos | the other half | file; definitions |
| austen | three novels | *Northanger Abbey* | *Sense and Sensibility*, *Persuasion* | novel; chapters |
| raymond | the Jargon File A–P and its essays | Q, R | S–Z | letter; entries |
| bierce | the Devil's Dictionary A–N | O, P | Q–Z | letter; entries |

*Covered*: one author per user; plays that are generally held to be collaborations (*Timon*, *Titus*) are left
out. *Not covered*: Raymond edited what many contributed; *Macbeth* has passages ascribed to Middleton; a
library module carries other people's patches. A pretrained model has very probably read all of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from string import ascii_lowercase

from sharedllm.corpus.document import SPLITS, Book, Document, Split, User
from sharedllm.corpus.domains import USER_PLAYS, USER_POEMS, divide
from sharedllm.corpus.novels import novels
from sharedllm.corpus.plays import plays
from sharedllm.corpus.poems import poems
from sharedllm.corpus.programs import module, sajip
from sharedllm.corpus.reference import devil, jargon
from sharedllm.corpus.sources import source, stdlib
from sharedllm.errors import UnknownName

__all__ = ["ALWAYS", "needs", "user", "users"]

ALWAYS = ("milton", "shakespeare", "sajip", "lingl")


def users() -> list[str]:
    """Name the users; those of `ALWAYS` are always available, the others need a Debian package."""
    return list(_MAKERS)


def user(name: str, root: Path = Path("/")) -> User:
    """Return a user's three splits. Raises ``UnknownName``, ``MissingSource``, ``DownloadFailed``."""
    if name not in _MAKERS:
        raise UnknownName(f"There is no user {name!r}; the users are {', '.join(_MAKERS)}.")
    return _MAKERS[name](root)


def needs(name: str) -> frozenset[str]:
    """Name the sources that a user or domain is made of, without reading them. Raises ``UnknownName``."""
    if name not in _NEEDS:
        raise UnknownName(f"There is no user or domain {name!r}; there are {', '.join(_NEEDS)}.")
    return frozenset(_NEEDS[name].split())


def _of(names: Mapping[str, tuple[str, ...]], books: Mapping[str, Book]) -> dict[Split, tuple[Document, ...]]:
    return divide({n: books[n] for split in SPLITS for n in names[split]}, names["validation"], names["test"])


@cache
def _milton(root: Path) -> User:
    splits = _of(USER_POEMS, poems())
    return User("milton", "John Milton", "epic in blank verse", **splits, licence=source("poems").licence)


@cache
def _shakespeare(root: Path) -> User:
    splits = _of(USER_PLAYS, plays())
    return User("shakespeare", "William Shakespeare", "tragedy", **splits, licence=source("plays").licence)


@cache
def _sajip(root: Path) -> User:
    books = dict(sajip())
    files = {
        "logging": "logging/__init__.py",
        "logging.config": "logging/config.py",
        "logging.handlers": "logging/handlers.py",
        "venv": "venv/__init__.py",
    }
    books = sajip() | {id: module(path, id) for id, path in files.items()}
    splits = divide(books, ("gnupg",), tuple(files))
    return User("sajip", "Vinay Sajip", "Python libraries", **splits, licence="PSF-2.0, BSD-3-Clause")


@cache
def _lingl(root: Path) -> User:
    demos = sorted(path.stem for path in (stdlib() / "turtledemo").glob("[a-z]*.py"))
    books = {"turtle": module("turtle.py", "turtle")}
    books |= {demo: module(f"turtledemo/{demo}.py", f"turtledemo.{demo}") for demo in demos}
    splits = divide(books, tuple(demos[0::2]), tuple(demos[1::2]))
    return User("lingl", "Gregor Lingl", "Python for learners", **splits, licence="PSF-2.0")


@cache
def _austen(root: Path) -> User:
    splits = divide(novels(root), ("northanger-abbey",), ("sense-and-sensibility", "persuasion"))
    return User("austen", "Jane Austen", "novel", **splits, licence=source("novels").licence)


@cache
def _raymond(root: Path) -> User:
    splits = _by_letter(jargon(root), "qr", "stuvwxyz")
    author = "Eric S. Raymond (editor)"
    return User("raymond", author, "hacker dictionary", **splits, licence=source("jargon").licence)


@cache
def _bierce(root: Path) -> User:
    splits = _by_letter(devil(root), "op", "qrstuvwxyz")
    return User("bierce", "Ambrose Bierce", "satirical dictionary", **splits, licence=source("devil").licence)


def _by_letter(books: Mapping[str, Book], validation: str, test: str) -> dict[Split, tuple[Document, ...]]:
    known = {letter for letter in ascii_lowercase if letter in books}
    return divide(books, tuple(x for x in validation if x in known), tuple(x for x in test if x in known))


_MAKERS: dict[str, Callable[[Path], User]] = {
    "milton": _milton,
    "shakespeare": _shakespeare,
    "sajip": _sajip,
    "lingl": _lingl,
    "austen": _austen,
    "raymond": _raymond,
    "bierce": _bierce,
}

_NEEDS = {
    "milton": "poems",
    "shakespeare": "plays",
    "sajip": "distlib gnupg stdlib",
    "lingl": "stdlib",
    "austen": "novels",
    "raymond": "jargon",
    "bierce": "devil",
    "code": "stdlib",
    "scripture": "bible",
    "drama": "plays",
    "verse": "poems",
    "technical": "kernel",
    "malayalam": "expeyes",
}
