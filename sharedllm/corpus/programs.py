"""Python's own library and two packages, as text: one book per top-level module, documents by file or
definition.

Generated tables (``encodings``, ``pydoc_data``), machine-specific files (``_sysconfigdata…``), tests and
installed third-party packages are left out. A licence banner at the head of a file is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from sharedllm.corpus.document import Book, book
from sharedllm.corpus.sources import fetch, members, stdlib
from sharedllm.errors import MissingSource

__all__ = ["definitions", "library", "module", "sajip", "without_banner"]

_SKIPPED_FOLDERS = {
    "__pycache__", "dist-packages", "encodings", "ensurepip", "idle_test", "lib-dynload", "pydoc_data",
    "site-packages", "test", "tests",
}  # fmt: skip
_SKIPPED_FILES = re.compile(r"_sysconfigdata.*|sitecustomize|usercustomize|__phello__|__hello__")


@cache
def library() -> dict[str, Book]:
    """Return the modules of the Python library by top-level name, such as ``asyncio`` or ``shlex``.

    Twins in C and Python (``_pydecimal`` and ``decimal``) share a book, so that a split can't tear them
    apart.
    """
    root = stdlib()
    files: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _SKIPPED_FOLDERS.isdisjoint(parts) and not parts[0].startswith("config-"):
            top = parts[0].removesuffix(".py")
            if not _SKIPPED_FILES.fullmatch(top):
                files.setdefault(re.sub(r"^_py(?=[a-z])|^_+", "", top) or top, []).append(path)
    found = {top: _file_book(f"stdlib/{top}", root, paths) for top, paths in files.items()}
    return {top: of for top, of in found.items() if of.documents}


def _file_book(id: str, root: Path, paths: Iterable[Path]) -> Book:
    parts = [(p.relative_to(root).as_posix(), without_banner(p.read_text("utf-8", "replace"))) for p in paths]
    return book(id, "stdlib", parts)


def module(path: str, id: str) -> Book:
    """Return one file of the Python library, cut at its top-level definitions. Raises ``MissingSource``."""
    file = stdlib() / path
    if not file.is_file():
        raise MissingSource(
            f"This Python has no {path} in {stdlib()}; install the complete library "
            "(Debian: apt-get install libpython3-stdlib python3-tk idle)."
        )
    return book(f"stdlib/{id}", "stdlib", definitions(without_banner(file.read_text("utf-8"))))


@cache
def sajip() -> dict[str, Book]:
    """Return the modules of ``distlib`` and ``gnupg`` by name, cut at definitions; both are by Vinay Sajip.

    ``distlib.compat`` is left out: most of it is copied from Python's library. Raises ``DownloadFailed``.
    """
    books = {}
    patterns = {"distlib": r"distlib/(?!compat|__init__)\w+\.py", "gnupg": r"gnupg\.py"}
    for source, pattern in patterns.items():
        for name, text in members(fetch(source), re.compile(pattern).fullmatch).items():
            id = name.removesuffix(".py").replace("/", ".")
            books[id] = book(f"{source}/{id}", source, definitions(without_banner(text)))
    return books


def without_banner(text: str) -> str:
    """Drop the leading block of comments when it is about copyright or licence; keep any other."""
    banner = re.match(r"(?:#.*\n|[ \t]*\n)+", text)
    if banner and re.search(r"copyright|licen[cs]e", banner[0], flags=re.IGNORECASE):
        return text[banner.end() :]
    return text


def definitions(text: str) -> list[tuple[str, str]]:
    """Cut a module before each top-level ``def`` or ``class`` (decorators stay with what they decorate)."""
    parts = re.split(r"^(?=(?:@.*\n)*(?:async def|def|class) )", text, flags=re.MULTILINE)
    joined: list[str] = []
    for part in parts:
        if joined and re.fullmatch(r"(?:@.*\n)+", joined[-1]):
            joined[-1] += part
        else:
            joined.append(part)
    named = ((re.search(r"(?:def|class) (\w+)", part), part) for part in joined if part)
    return [(name[1] if name else "head", part) for name, part in named]
