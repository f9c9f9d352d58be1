"""Blobs: files named by the SHA-256 of their content, so that a name can't come to mean something else.

A process that wrote or opened a blob holds an advisory lock on it until it ends, so that ``collect`` leaves
it alone. What comes from another machine grows in ``incoming``, in a file named by the hash that is expected,
and becomes a blob only when it has it; a transfer that was cut goes on where it ended.

*Covered*: a wrong byte anywhere (nothing is kept), a cut transfer, two that fetch the same blob at once, more
bytes than announced, a disk too small (said before the first byte). *Not covered*: file systems without
``flock``; a wrong byte is noticed at the end, not where it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from sharedllm.errors import BadModelFile, SharedLLMError, WriteFailed
from sharedllm.store import atomic
from sharedllm.store.cache import home, sha256_of

__all__ = ["Arriving", "BlobBusy", "Blobs", "Sink", "refuse_full_disk"]

_CHUNK_BYTES = 1 << 20
_held: dict[Path, tuple[int, int]] = {}  # blob -> its inode, and the descriptor that locks it


class BlobBusy(SharedLLMError):
    """Another process receives this very blob now."""


class Sink(Protocol):
    """Whatever bytes can be written to."""

    def write(self, data: bytes | memoryview, /) -> int: ...


class _Hashing:
    """A file that is hashed while it is written, so that gigabytes are not read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes | memoryview, /) -> int:
        self.digest.update(data)
        return self._file.write(data)


class Blobs:
    """The folder of blobs, ``home()/blobs`` unless ``root`` says otherwise."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = home() / "blobs" if root is None else root

    def path(self, sha256: str) -> Path:
        """Say where the blob of this hash is, or would be. Raises ``ValueError`` for what is no hash."""
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ValueError(f"{sha256!r} is not a SHA-256 in lower-case hexadecimal.")
        return self.root / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Say whether the blob is here; ``verify`` says whether it is whole."""
        return self.path(sha256).is_file()

    def arrived_bytes(self, sha256: str) -> int:
        """Say how much of a blob came that is not whole yet."""
        try:
            return (self.root / "incoming" / self.path(sha256).name).stat().st_size
        except FileNotFoundError:
            return 0

    def put(self, write: Callable[[Sink], None]) -> str:
        """Store what ``write`` writes and return its hash. Raises ``WriteFailed``, leaving nothing."""
        with contextlib.ExitStack() as until_held:
            with self._incoming() as (new, sink):
                write(sink)
                sha256 = sink.digest.hexdigest()
                until_held.enter_context(self.unchanging())
                # one that is there is replaced too: it may be damaged, and who mapped it keeps the old one
                new.path = self.path(sha256)
                new.path.parent.mkdir(exist_ok=True)
            _hold(self.path(sha256))
        return sha256

    @contextmanager
    def arriving(self, sha256: str, size: int, *, wait: bool = True) -> Iterator[Arriving]:
        """Yield what is here of a blob of ``size`` bytes, to be written on; it is kept when it is whole.

        If the body ends early or raises, what arrived stays for the next time. Raises ``BadModelFile`` for
        content of another hash, leaving nothing; ``WriteFailed`` if the disk has no room; ``BlobBusy`` if
        another process receives it, unless told to ``wait``.
        """
        path, partial = self.path(sha256), self.root / "incoming" / sha256
        partial.parent.mkdir(parents=True, exist_ok=True)
        with _alone(partial.with_suffix(".lock"), wait), self._growing(partial) as file:
            whole = path.is_file() and path.stat().st_size == size
            arriving = Arriving(sha256, size, None if whole else file)
            if not whole:
                refuse_full_disk(partial.parent, size - arriving.offset)
            try:
                yield arriving
                if not whole and arriving.offset == size:
                    arriving.check()
                    os.fsync(file.fileno())
                    with self.unchanging():
                        path.parent.mkdir(exist_ok=True)
                        partial.replace(path)
                        _hold(path)
            finally:
                if whole or arriving.offset == 0:
                    partial.unlink(missing_ok=True)

    def hold(self, sha256: str) -> Path:
        """Say where the blob is, and keep ``collect`` from removing it until this process ends."""
        with self.unchanging():
            return _hold(self.path(sha256))

    def remove(self, sha256: str) -> None:
        """Let go of a blob, and of what arrived of it; who has it open reads it to its end."""
        path = self.path(sha256)
        with self.unchanging(alone=True):
            for gone in (path, self.root / "incoming" / sha256):
                gone.unlink(missing_ok=True)
            if path in _held:
                os.close(_held.pop(path)[1])

    @contextmanager
    def unchanging(self, *, alone: bool = False) -> Iterator[None]:
        """Run the body while nobody collects; ``alone``: while nobody adds a blob either."""
        self.root.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield
        finally:
            os.close(handle)

    def put_bytes(self, data: bytes) -> str:
        """Store ``data`` and return its hash."""

        def write(sink: Sink) -> None:
            sink.write(data)

        return self.put(write)

    def put_file(self, path: Path) -> str:
        """Store a copy of the file and return its hash."""
        with path.open("rb") as source:
            return self.put(lambda sink: shutil.copyfileobj(source, sink, 1 << 20))

    def verify(self, sha256: str) -> None:
        """Read the whole blob and raise ``BadModelFile``, naming it, if it is missing or was changed."""
        path = self.path(sha256)
        if not path.is_file():
            raise BadModelFile(
                f"Blob {sha256} is missing: {path} does not exist. Fetch or train the model again."
            )
        found = sha256_of(path)
        if found != sha256:
            raise BadModelFile(
                f"Blob {sha256} is damaged: the content of {path} hashes to {found}. "
                "Delete that file, then fetch or train the model again."
            )

    @contextmanager
    def _growing(self, partial: Path) -> Iterator[BinaryIO]:
        """Open what is here of a blob, so that ``collect`` sees that it is in use."""
        with self.unchanging():
            handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(handle, fcntl.LOCK_SH)
        with os.fdopen(handle, "r+b", 0) as file:
            yield file

    @contextmanager
    def _incoming(self) -> Iterator[tuple[atomic.Unnamed, _Hashing]]:
        with atomic.naming(self.root) as new:
            yield new, _Hashing(new.file)


class Arriving:
    """A blob on its way: ``offset`` bytes of ``size`` are here, hashed; ``write`` adds the next ones."""

    def __init__(self, sha256: str, size: int, file: BinaryIO | None) -> None:
        self.sha256, self.size, self.offset = sha256, size, size
        self._file, self._digest = file, hashlib.sha256()
        if file is not None:
            self.offset = 0
            if os.fstat(file.fileno()).st_size > size:
                file.truncate(0)
            while chunk := file.read(_CHUNK_BYTES):
                self._digest.update(chunk)
                self.offset += len(chunk)

    def write(self, data: bytes) -> None:
        """Append ``data``. Raises ``BadModelFile`` for more bytes than announced, forgetting all of them.

        Raises ``WriteFailed`` when the disk refuses; what arrived before is kept.
        """
        if self.offset + len(data) > self.size:
            self._forget()
            raise BadModelFile(
                f"More than the {self.size:,} bytes of blob {self.sha256} arrived; they were thrown away. "
                "Fetch it again, or from somebody else."
            )
        try:
            rest = memoryview(data)
            while rest and self._file is not None:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._cut(self.offset)
            raise WriteFailed(
                f"Blob {self.sha256} could not be written ({error.strerror}); what arrived is kept. Free "
                "some space, and try again."
            ) from error
        self._digest.update(data)
        self.offset += len(data)

    def check(self) -> None:
        """Raise ``BadModelFile`` unless what arrived is the blob, forgetting all of it."""
        found = self._digest.hexdigest()
        if found != self.sha256:
            self._forget()
            raise BadModelFile(
                f"What arrived as blob {self.sha256} hashes to {found}; it was thrown away. Fetch it again, "
                "or from somebody else."
            )

    def _forget(self) -> None:
        if self._file is not None:
            self._cut(0)

    def _cut(self, n_bytes: int) -> None:
        assert self._file is not None
        self._file.truncate(n_bytes)
        self._file.seek(n_bytes)
        self.offset = n_bytes


def _hold(path: Path) -> Path:
    with contextlib.suppress(FileNotFoundError):
        inode = path.stat().st_ino
        before = _held.get(path)
        if before is None or before[0] != inode:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(handle, fcntl.LOCK_SH)
            _held[path] = (os.fstat(handle).st_ino, handle)
            if before is not None:
                os.close(before[1])
    return path


@contextmanager
def _alone(lock: Path, wait: bool) -> Iterator[None]:
    """Run the body while nobody else holds ``lock``, a file that is here only meanwhile."""
    while True:
        with lock.open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlobBusy(f"Blob {lock.stem} is being received already; try again later.") from None
            if not _is_at(lock, file):
                continue  # whoever had it before removed it
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def refuse_full_disk(folder: Path, to_come: int) -> None:
    """Raise ``WriteFailed`` if the disk of ``folder`` has no room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if to_come > free:
        raise WriteFailed(
            f"{to_come:,} bytes are to come, but the disk of {folder} has {free:,} left. Free some space, or "
            "point SHAREDLLM_HOME at another disk, and try again."
        )
