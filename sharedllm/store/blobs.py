"""Blobs: files named by the SHA-256 of their content, so that a name can't come to mean something else."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from sharedllm.errors import BadModelFile
from sharedllm.store import atomic
from sharedllm.store.cache import home, sha256_of

__all__ = ["Blobs", "Sink"]


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

    def put(self, write: Callable[[Sink], None]) -> str:
        """Store what ``write`` writes and return its hash. Raises ``WriteFailed``, leaving nothing."""
        with self._incoming() as (new, sink):
            write(sink)
            sha256 = sink.digest.hexdigest()
            # one that is there is replaced too: it may be damaged, and whoever mapped it keeps the old one
            new.path = self.path(sha256)
            new.path.parent.mkdir(exist_ok=True)
        return sha256

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
    def _incoming(self) -> Iterator[tuple[atomic.Unnamed, _Hashing]]:
        with atomic.naming(self.root) as new:
            yield new, _Hashing(new.file)
