"""The journal: one file to which each batch is appended and synced before anyone may hear of it.

A frame is a header (magic, lengths, index of its first entry), the entries as in a bundle, the checkpoint
signed over all up to them, and 16 bytes of SHA-256 of it all. Whatever follows the last whole frame was
never answered for, and is cut off when the journal is opened.

*Covered*: SIGKILL at any byte, a power cut that leaves the end short, zeroed or garbled, a full disk, and
damage before the end, which is refused rather than cut off. *Not covered*: a disk that says a sync is done
when it is not; a journal cut below its last synced frame is noticed only where the published checkpoint says
more.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sharedllm.attribution.log.tiles import bundle, unbundle
from sharedllm.errors import BadLog, WriteFailed
from sharedllm.store import atomic

__all__ = ["PARTIAL", "Frame", "Journal", "write_file"]

PARTIAL = ".partial"

_MAGIC = b"SLJ1"
_HEADER = struct.Struct(">4sIIQ")
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Frame:
    """A batch: the index of its first entry, its entries, and the checkpoint after them."""

    first: int
    entries: tuple[bytes, ...]
    note: bytes

    def to_bytes(self) -> bytes:
        """The frame as it is written."""
        body = bundle(self.entries)
        data = _HEADER.pack(_MAGIC, len(body), len(self.note), self.first) + body + self.note
        return data + hashlib.sha256(data).digest()[:_DIGEST_BYTES]


def _frames(data: bytes) -> Iterator[tuple[int, Frame]]:
    """Give each whole frame, and where it ends."""
    view, at = memoryview(data), 0
    while len(data) - at >= _HEADER.size:
        magic, body_bytes, note_bytes, first = _HEADER.unpack_from(data, at)
        body, note = at + _HEADER.size, at + _HEADER.size + body_bytes
        stop = note + note_bytes
        end = stop + _DIGEST_BYTES
        if magic != _MAGIC or end > len(data):
            return
        if hashlib.sha256(view[at:stop]).digest()[:_DIGEST_BYTES] != data[stop:end]:
            return
        yield end, Frame(first, tuple(unbundle(data[body:note])), data[note:stop])
        at = end


class Journal:
    """An open journal; ``frames`` are those that it held.

    Raises ``BadLog`` for one that is damaged before its end, ``WriteFailed`` where the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._broken = False
        with contextlib.ExitStack() as undo, _refusals(path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, self._handle)
            with os.fdopen(os.dup(self._handle), "rb") as file:
                data = file.read()
            held = list(_frames(data))
            self.frames = [frame for _, frame in held]
            self._length = held[-1][0] if held else 0
            _refuse_damage(path, data, self._length)
            if len(data) > self._length:
                self._undo()
            atomic.sync(path.parent)
            undo.pop_all()

    def append(self, frame: Frame) -> None:
        """Write a frame and sync it; on ``WriteFailed`` the journal is what it was."""
        data = frame.to_bytes()
        with _refusals(self._path):
            if self._broken:
                self._undo()
            try:
                _write(self._handle, data, self._length)
            except OSError:
                self._broken = True
                with contextlib.suppress(OSError):
                    self._undo()
                raise
        self._length += len(data)

    def begin_with(self, frame: Frame) -> None:
        """Replace the journal by one of this frame alone, whole or not at all."""
        data = frame.to_bytes()
        with _refusals(self._path), _temporary(self._path) as (handle, name):
            new = os.dup(handle)
            try:
                _write(new, data, 0)
                name.replace(self._path)
            except BaseException:
                os.close(new)
                raise
            os.close(self._handle)
            self._handle, self._length, self._broken = new, len(data), False
            atomic.sync(self._path.parent)

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def _undo(self) -> None:
        """Cut off what a failed write left, so that nothing stands behind the next frame."""
        os.ftruncate(self._handle, self._length)
        os.fsync(self._handle)
        self._broken = False


def _refuse_damage(path: Path, data: bytes, end: int) -> None:
    """Tell a torn end, which a crash leaves, from damage before a frame that was synced later."""
    at = end
    while (at := data.find(_MAGIC, at + 1)) >= 0:
        if any(_frames(data[at:])):
            raise BadLog(
                f"{path} is damaged at byte {end:,}, and what was written after it is still there: no crash "
                "does that. Restore the file from a copy."
            )


def write_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Write ``path`` whole or not at all, for its owner alone (0600); with ``sync``, safe from a power cut.

    Raises ``WriteFailed`` when the disk refuses.
    """
    with _refusals(path):
        _make_folder(path.parent)
        with _temporary(path) as (handle, name):
            _write(handle, data, 0, sync=sync)
            name.replace(path)
        if sync:
            atomic.sync(path.parent)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[int, Path]]:
    """An open file beside ``path`` that is removed again unless it is renamed."""
    handle, name = tempfile.mkstemp(prefix=".", suffix=PARTIAL, dir=path.parent)
    try:
        yield handle, Path(name)
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            Path(name).unlink(missing_ok=True)


def _write(handle: int, data: bytes, at: int, *, sync: bool = True) -> None:
    """Write all of ``data`` at a position, and sync unless told otherwise."""
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, at)
        view, at = view[written:], at + written
    if sync:
        os.fsync(handle)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, and their names safe from a power cut."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        atomic.sync(folder.parent)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteFailed(
            f"The log at {path} could not be written ({error.strerror}); what it held before is as it was. "
            "Free some space; what is served until then is not audited."
        ) from error
    except BadLog as error:
        raise BadLog(f"{path}: {error}") from error
