"""Where a ledger writes before it speaks: entries that are on disk, all of a call or none, once it returns.

``Journal`` is SQLite with a write-ahead log and ``synchronous=FULL``, in a file that only its user reads.
``Memory`` is the same for simulations: it outlives an account, as a disk outlives a process.

*Covered*: SIGKILL and power cuts at any point (an entry is whole and last, or not there), another process on
the same file (it waits up to 10 s), a full disk (refused, nothing written). *Not covered*: a disk that
lies about having written; a file that is put back to an older state (its node would then claim numbers
anew, which its peers refuse).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from sharedllm.nodes.settlement.errors import JournalBroken

__all__ = ["Entry", "Journal", "Journals", "Memory"]

_WAIT_S = 10.0
_TABLE = "CREATE TABLE IF NOT EXISTS entries (at INTEGER PRIMARY KEY, kind TEXT NOT NULL, body BLOB NOT NULL)"


class Entry(NamedTuple):
    """What happened, in one word, and the statement that says so."""

    kind: str
    body: bytes


class Journals(Protocol):
    """What a ledger needs of a journal."""

    def append(self, *entries: Entry) -> None:
        """Keep the entries, all or none; raises ``JournalBroken`` if they can't be kept."""

    def entries(self) -> Iterator[Entry]:
        """Everything that was kept, in order."""


class Memory:
    """A journal in memory."""

    def __init__(self) -> None:
        self._kept: list[Entry] = []

    def append(self, *entries: Entry) -> None:
        """Keep the entries."""
        self._kept.extend(entries)

    def entries(self) -> Iterator[Entry]:
        """Everything that was kept, in order."""
        return iter(self._kept)


class Journal:
    """A journal in the SQLite file ``path``, made (0600) where there is none.

    Raises ``JournalBroken`` if the file is none, or can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._database = sqlite3.connect(path, timeout=_WAIT_S)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            with self._database:
                self._database.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise self._broken("opened", error) from error

    def append(self, *entries: Entry) -> None:
        """Keep the entries in one transaction, on disk when this returns."""
        try:
            with self._database:
                self._database.executemany("INSERT INTO entries (kind, body) VALUES (?, ?)", entries)
        except sqlite3.Error as error:
            raise self._broken("written", error) from error

    def entries(self) -> Iterator[Entry]:
        """Everything that was kept, in order."""
        try:
            for kind, body in self._database.execute("SELECT kind, body FROM entries ORDER BY at"):
                yield Entry(kind, body)
        except sqlite3.Error as error:
            raise self._broken("read", error) from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _broken(self, what: str, error: Exception) -> JournalBroken:
        return JournalBroken(
            f"The journal {self._path} could not be {what} ({error}). Free some space or mend the file; "
            "until then this node can't prove what it gives or takes."
        )
