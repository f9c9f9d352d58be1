"""The journal: one file to which each batch is appended and synced before anyone may hear of it.

A frame is a header (magic, lengths, index of its first entry), the entries as in a bundle, the checkpoint
signed over all up to them, and 16 bytes of SHA-256 of it all. Whatever follows the last whole frame was
never answered for, and is cut off when the journal is opened.

*Covered*: SIGKILL at any byte, a power cut that leaves the end short, zeroed or garbled, a full disk.
*Not covered*: a disk that says a sync is done when it is not; a journal cut below its last synced frame is
noticed only where the published checkpoint says more.
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

__all__ = ["Frame", "Journal", "write_file"]

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
    """An open journal; ``frames`` are those that it held. Raises ``WriteFailed`` where the disk refuses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._broken = False
        with _refusals(path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(os.dup(self._handle), "rb") as file:
                data = file.read()
            held = list(_frames(data))
            self.frames = [frame for _, frame in held]
            self._length = held[-1][0] if held else 0
            if len(data) > self._length:
                os.ftruncate(self._handle, self._length)
                os.fsync(self._handle)
            sync_folder(path.parent)

    def append(self, frame: Frame) -> None:
        """Write a frame and sync it; on ``WriteFailed`` the journal is what it was."""
        data = frame.to_bytes()
        with _refusals(self._path):
            if self._broken:
                self._undo()
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(self._handle, data[written:], self._length + written)
                os.fsync(self._handle)
            except OSError:
                self._broken = True
                with contextlib.suppress(OSError):
                    self._undo()
                raise
        self._length += len(data)

    def begin_with(self, frame: Frame) -> None:
        """Replace the journal by one of this frame alone, whole or not at all."""
        data = frame.to_bytes()
        write_file(self._path, data, sync=True)
        with _refusals(self._path):
            handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        os.close(self._handle)
        self._handle, self._length = handle, len(data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def _undo(self) -> None:
        """Cut off what a failed write left, so that nothing stands behind the next frame."""
        os.ftruncate(self._handle, self._length)
        os.fsync(self._handle)
        self._broken = False


def write_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Write ``path`` whole or not at all, for its owner alone (0600); with ``sync``, safe from a power cut.

    Raises ``WriteFailed`` when the disk refuses.
    """
    with _refusals(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink(missing_ok=True)
            raise
        if sync:
            sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder safe from a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
