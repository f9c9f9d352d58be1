"""Jane Austen's six novels, out of the R data file of the Debian package `r-cran-janeaustenr`, without R.

An ``.rdb`` is records of a 4-byte big-endian length and a zlib stream of R's serialisation (R Internals §1.8,
"XDR" format); each record here is a character vector, one string per line of the novel.
"""

from __future__ import annotations

import re
import struct
import zlib
from functools import cache
from pathlib import Path

from sharedllm.corpus.document import Book, book
from sharedllm.corpus.sources import debian_files
from sharedllm.errors import MissingSource

__all__ = ["chapters", "novels", "records", "strings"]

_STRSXP, _CHARSXP, _NA = 16, 9, -1
_NOVEL_AT_LEAST_LINES = 1_000


@cache
def novels(root: Path = Path("/")) -> dict[str, Book]:
    """Return the novels by name, such as ``emma``; one document per chapter. Raises ``MissingSource``."""
    (file,) = debian_files("novels", root)
    found = {}
    for record in records(file.read_bytes()):
        lines = strings(record)
        if len(lines) >= _NOVEL_AT_LEAST_LINES:
            name = re.sub(r"\W+", "-", next(line for line in lines if line).lower())
            found[name] = book(f"novels/{name}", "novels", chapters("\n".join(lines)))
    return found


def records(data: bytes) -> list[bytes]:
    """Unpack the records of an ``.rdb``. Raises ``MissingSource`` when the file is damaged."""
    found, position = [], 0
    while position < len(data):
        stream = zlib.decompressobj()
        try:
            found.append(stream.decompress(data[position + 4 :]))
        except zlib.error as error:
            raise _damaged(f"at byte {position}: {error}") from error
        if not stream.eof:
            raise _damaged("it ends in the middle of a record")
        position = len(data) - len(stream.unused_data)
    return found


def strings(record: bytes) -> list[str]:
    """Read an XDR-serialised character vector; anything else gives an empty list."""
    reader = _Reader(record)
    if reader.take(2) != b"X\n":
        raise _damaged("a record is not in the XDR format")
    version = reader.integers(3)[0]
    if version == 3:  # version 2 has no native encoding
        reader.take(reader.integers(1)[0])
    if reader.integers(1)[0] & 0xFF != _STRSXP:
        return []
    lines = []
    for _ in range(reader.integers(1)[0]):
        kind, length = reader.integers(2)
        if kind & 0xFF != _CHARSXP:
            raise _damaged("a character vector holds something else than strings")
        lines.append("" if length == _NA else reader.take(length).decode("utf-8", "replace"))
    return lines


class _Reader:
    """Reads big-endian integers and bytes off a record, and refuses to read past its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, length: int) -> bytes:
        end = self._position + length
        if length < 0 or end > len(self._data):
            raise _damaged("a length points past the end of a record")
        taken, self._position = self._data[self._position : end], end
        return taken

    def integers(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f">{count}i", self.take(4 * count))


def chapters(novel: str) -> list[tuple[str, str]]:
    """Cut a novel at its chapters; title page, volume headings and *Finis* go."""
    body = re.sub(r"^\s*VOLUME [IVX]+\s*$|^\s*(?:Finis|FINIS|THE END)\s*$", "", novel, flags=re.MULTILINE)
    parts = re.split(r"^[ \t]*(?=chapter \w+[ \t]*$)", body, flags=re.MULTILINE | re.IGNORECASE)[1:]
    return [(part.partition("\n")[0].strip().capitalize(), part) for part in parts]


def _damaged(what: str) -> MissingSource:
    return MissingSource(
        f"The text 'novels' is damaged ({what}): apt-get install --reinstall r-cran-janeaustenr."
    )
