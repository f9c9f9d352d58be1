"""Garbage collection: blobs that nothing names and nobody uses are removed, and nothing else ever is.

Kept is each blob whose hash appears anywhere in a file of ``models``, ``converted``, ``specialists`` or
``adapters``, or in one that ships with the package; even in a file that is damaged, or that only mentions it,
for a hash too many costs a little disk and a blob too few costs a model. Kept too is what a live process
locks: what it opened or wrote, and what it is receiving. A transfer that was cut can go on for a day.

*Covered*: a process that is killed in the middle (every removal is one unlink of one whole file, so what is
left is a store, only not yet clean), a blob that is written or opened meanwhile (adding one waits). *Not
covered*: programs that map blobs without ``Blobs.hold``; they keep what they mapped, but can't map it again.
"""

from __future__ import annotations

import dataclasses
import fcntl
import re
import time
from collections.abc import Iterator
from pathlib import Path

from sharedllm.errors import BadModelFile
from sharedllm.store.blobs import Blobs
from sharedllm.store.cache import home

__all__ = ["Collected", "collect"]

_FOLDERS = ("models", "converted", "specialists", "adapters")
_SHIPPED = Path(__file__).parent / "artefacts"
_HASH = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_STALE_S = 86_400.0
_READ_BYTES = 1 << 20
_BLOB_NAME = "[0-9a-f]" * 64


@dataclasses.dataclass(frozen=True)
class Collected:
    """What a collection removed, or would: files and their bytes; and what it left because it is in use."""

    removed: tuple[Path, ...]
    n_bytes: int
    in_use: tuple[Path, ...]


def collect(*, dry_run: bool = False) -> Collected:
    """Remove what nothing names and nobody uses; with ``dry_run`` only say what that is.

    Raises ``BadModelFile``, having removed nothing, if a file that may name a blob can't be read.
    """
    blobs = Blobs()
    removed, in_use, n_bytes = [], [], 0
    with blobs.unchanging(alone=True):
        for path in _unnamed(blobs):
            size = path.stat().st_size
            if not _unused(path, dry_run):
                in_use.append(path)
                continue
            removed.append(path)
            n_bytes += size
    return Collected(tuple(removed), n_bytes, tuple(in_use))


def _unnamed(blobs: Blobs) -> Iterator[Path]:
    named = _named()
    for path in sorted(blobs.root.glob(f"[0-9a-f][0-9a-f]/{_BLOB_NAME}")):
        if path.name not in named:
            yield path
    before_s = time.time() - _STALE_S
    for path in sorted([*(blobs.root / "incoming").glob("*"), *blobs.root.glob(".*.partial")]):
        if path.stat().st_mtime < before_s:
            yield path


def _named() -> set[str]:
    named: set[str] = set()
    for folder in (_SHIPPED, *(home() / folder for folder in _FOLDERS)):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                named |= _hashes(path)
    return named


def _hashes(path: Path) -> set[str]:
    """Read what a manifest, or the header of an adapter's file, names."""
    try:
        with path.open("rb") as file:
            return {found.decode() for found in _HASH.findall(file.read(_READ_BYTES))}
    except FileNotFoundError:  # a name that was saved over meanwhile: the new file is read, or names no blob
        return set()
    except OSError as error:
        raise BadModelFile(
            f"{path} can't be read ({error.strerror}), and it may name blobs that are needed; nothing was "
            "removed. Make it readable, or remove it."
        ) from error


def _unused(path: Path, dry_run: bool) -> bool:
    """Remove the file unless somebody locks it; say whether it is (or would be) gone."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not dry_run:
            path.unlink()
    return True
