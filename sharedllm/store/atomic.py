"""Every file and folder appears complete or not at all: temporary name, fsync, rename.

Temporary names start with a dot and end in ``.partial``, in the folder of the target (a rename is atomic
only within one file system).

*Covered*: a full disk, a quota, a file-size limit, an exception in the body, an interrupt, a power cut after
the return. *Not covered*: ``SIGKILL`` leaves a ``.partial`` behind, which nothing ever reads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sharedllm.errors import WriteFailed

__all__ = ["Unnamed", "folder", "locked", "naming", "sync", "write_bytes", "writing"]

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old content or all of the new.

    Raises ``WriteFailed`` when the disk refuses; ``path`` is then as it was.
    """
    with writing(path) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Yield an open binary file that becomes ``path`` when the body succeeds (``file.name`` until then).

    Raises ``WriteFailed`` when the disk refuses; any exception removes the file and leaves ``path`` as it
    was.
    """
    with naming(path.parent) as new:
        new.path = path
        yield new.file


@dataclasses.dataclass
class Unnamed:
    """A file that is being written; it becomes ``path``, or vanishes if that stays None."""

    file: BinaryIO
    path: Path | None = None


@contextlib.contextmanager
def naming(parent: Path) -> Iterator[Unnamed]:
    """As ``writing``, for content whose name follows from what was written: the body sets ``path``."""
    with _refusals(parent):
        parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=parent)
    temporary = Path(name)
    try:
        with _refusals(parent, _DISK), os.fdopen(handle, "wb") as file:
            new = Unnamed(file)
            yield new
            file.flush()
            # mkstemp makes 0600; another user of the machine may read what is published
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
        if new.path is not None:
            with _refusals(new.path):
                temporary.replace(new.path)
                sync(new.path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``path`` when the body succeeds; ``path`` must not exist yet.

    Call it under ``locked``: its temporary name is fixed, so that remains of a killed process are removed.
    Raises ``WriteFailed`` when the disk refuses.
    """
    temporary = path.parent / f".{path.name}.partial"
    with _refusals(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    try:
        with _refusals(path, _DISK):
            yield temporary
            for name in sorted(temporary.rglob("*")):
                sync(name)
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` against every other process and thread; wait while another holds it.

    The operating system releases it when the holder dies. Raises ``WriteFailed`` when the file can't be
    made.
    """
    with _refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _refusals(path: Path, codes: set[int] | None = None) -> Iterator[None]:
    """Turn an ``OSError`` (of ``codes``, or any) into a sentence about ``path``."""
    try:
        yield
    except OSError as error:
        if codes is not None and error.errno not in codes:
            raise
        raise WriteFailed(
            f"{path} could not be written ({error.strerror}); nothing half-written was left. "
            "Free some space, or point SHAREDLLM_HOME at a folder that can be written to, and try again."
        ) from error


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, safe from a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
