"""Dictionaries and manuals out of Debian packages: the Jargon File, the Devil's Dictionary, kernel
documentation, and the ExpEYES-17 manual in Malayalam. All are optional; a missing one is a sentence that
names its package.
"""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

from sharedllm.corpus.document import Book, book
from sharedllm.corpus.sources import debian_files
from sharedllm.errors import MissingSource

__all__ = ["devil", "expeyes", "jargon", "kernel", "parse_devil", "parse_jargon", "plain_text"]

_BLOCKS = {
    "blockquote",
    "dd",
    "div",
    "dt",
    "h1",
    "h2",
    "h3",
    "h4",
    "li",
    "p",
    "pre",
    "section",
    "table",
    "tr",
}
_SILENT = {"head", "script", "style"}


def _unpacked(name: str, file: Path) -> str:
    """Read a gzip (or dictzip, which is one) file. Raises ``MissingSource`` when it is damaged."""
    try:
        return gzip.decompress(file.read_bytes()).decode("utf-8", "replace")
    except (OSError, EOFError, zlib.error) as error:
        raise MissingSource(
            f"The text {name!r} is damaged: {file}: {error}. Reinstall its package."
        ) from error


@cache
def jargon(root: Path = Path("/")) -> dict[str, Book]:
    """Return the Jargon File: its essays (``essays``), its lexicon by letter (``a`` …). Raises
    ``MissingSource``.
    """
    (file,) = debian_files("jargon", root)
    return parse_jargon(_unpacked("jargon", file))


def parse_jargon(text: str) -> dict[str, Book]:
    """Cut the File at its chapters and its entries (``:headword:``); the table of contents goes."""
    front, _, rest = text.replace("\u00a0", " ").partition("\nGlossary\n")
    lexicon, _, appendices = rest.partition("\nAppendix A.")
    essays = re.split(r"^(?=Chapter \d+\. )", front, flags=re.MULTILINE)[1:]
    essays += re.split(r"^(?=Appendix [A-Z]\. )", f"Appendix A.{appendices}", flags=re.MULTILINE)
    entries = re.split(r"^(?=   :[^\n]*?:)", lexicon, flags=re.MULTILINE)[1:]
    return _by_letter("jargon", entries, r"   :\W*(\w)") | {
        "essays": book("jargon/essays", "jargon", [(e.partition("\n")[0], f"{e}\n") for e in essays])
    }


@cache
def devil(root: Path = Path("/")) -> dict[str, Book]:
    """Return the Devil's Dictionary by letter (``a`` …). Raises ``MissingSource``."""
    (file,) = debian_files("devil", root)
    return parse_devil(_unpacked("devil", file))


def parse_devil(text: str) -> dict[str, Book]:
    """Cut the dictionary at its headwords; the notices before the preface go."""
    body = text.partition("PREFACE\n")[2]
    entries = re.split(r"\n(?=[A-Z][A-Z'-]+(?: [A-Z'-]+)*(?:, |\.\n| \())", body)[1:]
    return _by_letter("devil", entries, r"(\w)")


def _by_letter(source: str, entries: list[str], initial: str) -> dict[str, Book]:
    letters: dict[str, list[tuple[str, str]]] = {}
    for entry in entries:
        found = re.match(initial, entry)
        letter = found[1].lower() if found and found[1].isalpha() else "0"
        letters.setdefault(letter, []).append((entry.strip().partition("\n")[0][:40], f"{entry}\n"))
    return {letter: book(f"{source}/{letter}", source, parts) for letter, parts in sorted(letters.items())}


@cache
def kernel(root: Path = Path("/")) -> dict[str, Book]:
    """Return the Linux kernel's documentation by top-level folder; translations are left out. Raises
    ``MissingSource``.
    """
    folders: dict[str, list[tuple[str, str]]] = {}
    for file in debian_files("kernel", root):
        parts = file.parts[file.parts.index("Documentation") + 1 :]
        if parts[0] != "translations":
            text = re.sub(r"\A(?:\.\. .*\n)+", "", _unpacked("kernel", file))
            folders.setdefault(parts[0].partition(".")[0], []).append(
                ("/".join(parts).removesuffix(".gz"), f"{text}\n")
            )
    return {name: book(f"kernel/{name}", "kernel", texts) for name, texts in sorted(folders.items())}


@cache
def expeyes(root: Path = Path("/")) -> dict[str, Book]:
    """Return the ExpEYES-17 physics manual in Malayalam by chapter number (``1`` …). Raises
    ``MissingSource``.
    """
    (file,) = debian_files("expeyes", root)
    chapters: dict[str, list[tuple[int, str, str]]] = {}
    try:
        with zipfile.ZipFile(file) as epub:
            for name in epub.namelist():
                if number := re.fullmatch(r"(\d+)\.(\d+)\.xhtml", name):
                    text = plain_text(epub.read(name).decode())
                    chapters.setdefault(number[1], []).append((int(number[2]), name, text))
    except (zipfile.BadZipFile, zlib.error, UnicodeDecodeError) as error:
        raise MissingSource(
            f"The text 'expeyes' is damaged: {file}: {error}. Reinstall its package."
        ) from error
    return {
        chapter: book(f"expeyes/{chapter}", "expeyes", [(name, text) for _, name, text in sorted(sections)])
        for chapter, sections in sorted(chapters.items())
    }


class _Text(HTMLParser):
    """Collects what a reader sees, with a line break at each block element."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in _SILENT
        if tag in _BLOCKS or tag == "br":
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in _SILENT
        if tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.pieces.append(re.sub(r"\s+", " ", data))


def plain_text(html: str) -> str:
    """Return the text of an (X)HTML page as a reader sees it."""
    parser = _Text()
    parser.feed(html)
    lines = (line.strip() for line in "".join(parser.pieces).split("\n"))
    return "\n".join(line for line in lines if line) + "\n"
