"""A person's own files become documents; what was left out is listed with the reason.

A folder gives its text files by their suffix, at any depth, in the order of their paths. A file that is named
itself is read whatever its suffix, and must be readable.

*Covered*: hidden files and folders, other formats, links, devices, encodings, empty and oversize files, one
text under two names (which could end on both sides of a split). *Not covered*: near-copies, such as a draft
and its final version; keep one of them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sharedllm.corpus.document import Document, clean
from sharedllm.errors import BadText

__all__ = ["SUFFIXES", "Reading", "Skipped", "read_texts"]

PROSE = (".txt", ".md", ".markdown", ".rst", ".org", ".adoc", ".tex")
CODE = (".py", ".js", ".ts", ".c", ".h", ".cpp", ".hpp", ".java", ".go", ".rs", ".rb", ".sh", ".sql", ".css")
SUFFIXES = (*PROSE, *CODE)
_MOST_BYTES = 4 << 20
_MOST_FILES = 10_000
_UNREAD = {"__pycache__", "node_modules", "venv"}


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was left out, and why, as the end of a sentence ("is empty")."""

    path: Path
    why: str


@dataclass(frozen=True)
class Reading:
    """What was read, by path, and what was not. A document's id is the path as it was found."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]


def read_texts(paths: Iterable[Path]) -> Reading:
    """Read files and folders. Raises ``BadText`` for a path that isn't there, for a named file that is no
    UTF-8 text, and when nothing is left.
    """
    given = [path.expanduser() for path in paths]
    documents: list[Document] = []
    skipped: list[Skipped] = []
    seen: dict[str, Path] = {}
    for path, named in _found(given, skipped):
        try:
            document = _read(path)
            if document.sha256 in seen:
                raise BadText(f"holds the same text as {seen[document.sha256]}")
        except BadText as error:
            if named and len(given) == 1:
                raise BadText(f"{path} {error}.") from error
            skipped.append(Skipped(path, str(error)))
            continue
        seen[document.sha256] = path
        documents.append(document)
    if not documents:
        raise BadText(
            f"No text was found in {', '.join(map(str, given))} ({len(skipped)} files were left out); give "
            f"files, or folders with files ending in {', '.join(SUFFIXES)}."
        )
    return Reading(tuple(documents), tuple(skipped))


def _found(given: list[Path], skipped: list[Skipped]) -> Iterator[tuple[Path, bool]]:
    """Give each file once, and say whether it was named itself; what lies in folders comes sorted."""
    once: set[Path] = set()
    for path in given:
        if not path.exists():
            raise BadText(f"{path} does not exist; give files or folders of text.")
        for file in _walk(path, skipped) if path.is_dir() else [path]:
            if (real := file.resolve()) not in once:
                once.add(real)
                yield file, file == path
            if len(once) > _MOST_FILES:
                raise BadText(f"{path} holds more than {_MOST_FILES:,} texts; give a smaller folder.")


def _walk(folder: Path, skipped: list[Skipped]) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        skipped.append(Skipped(folder, f"can't be opened ({error.strerror})"))
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name in _UNREAD:
            skipped.append(Skipped(path, "is hidden or made by a program"))
        elif entry.is_symlink():
            skipped.append(Skipped(path, "is a link"))
        elif entry.is_dir():
            yield from _walk(path, skipped)
        elif path.suffix.lower() not in SUFFIXES:
            skipped.append(Skipped(path, f"is no text by its ending {path.suffix or '(none)'!r}"))
        else:
            yield path


def _read(path: Path) -> Document:
    """Read one file; a ``BadText`` says what is wrong with it as the end of a sentence."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise BadText("is no regular file")
        if facts.st_size > _MOST_BYTES:
            raise BadText(f"has {facts.st_size:,} bytes, more than the {_MOST_BYTES:,} that are read of one")
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES)
    except OSError as error:
        raise BadText(f"can't be opened ({error.strerror})") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadText("is UTF-16; save it as UTF-8")
    if b"\0" in data:
        raise BadText("is no text: it holds a zero byte")
    try:
        text = clean(data.decode())
    except UnicodeDecodeError as error:
        raise BadText(
            f"is not UTF-8 (byte 0x{data[error.start]:02X} at position {error.start:,}); save it as UTF-8"
        ) from error
    if not text.strip():
        raise BadText("is empty")
    whole = text.encode()
    return Document(str(path), path.name, text, "own", len(whole), hashlib.sha256(whole).hexdigest())
