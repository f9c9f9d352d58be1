"""What is on the shelf: manifests by id, blobs by hash, within a quota of bytes.

*Covered*: a name that another key took first, blobs that nobody announced or that have another size than
announced, more bytes than the quota, more manifests than can be listed; a restart; what was withdrawn and is
offered again. *Not covered*: a member who fills the quota with models nobody wants; the operator deletes
files of ``library``, and revokes it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sharedllm.errors import BadManifest, SharedLLMError
from sharedllm.store import Blobs, atomic
from sharedllm.store.blobs import BlobBusy
from sharedllm.store.specialists import Signed, Withdrawal

__all__ = ["NotOnShelf", "Shelf", "ShelfRefused"]

_MANIFESTS = 4_096
_WITHDRAWN = 65_536
_log = logging.getLogger(__name__)


class NotOnShelf(SharedLLMError):
    """No manifest or blob of that name or hash was published in this federation."""


class ShelfRefused(SharedLLMError):
    """The shelf has no room, or not for this: the name is taken, the blob unannounced or of another size."""


class Shelf:
    """Manifests and blobs under ``folder``, of at most ``quota_bytes``. Safe for many threads."""

    def __init__(self, folder: Path, quota_bytes: int) -> None:
        self.folder, self.quota_bytes = folder, quota_bytes
        self.blobs = Blobs(folder / "blobs")
        self._lock = threading.Lock()
        self._promised: dict[str, int] = {}
        self._by_id: dict[str, Signed] = {}
        self._withdrawn = {path.stem for path in (folder / "withdrawn").glob("*.json")}
        paths = (folder / "manifests").glob("*.json")
        for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name)):
            try:
                self._put(Signed.from_bytes(path.read_bytes(), str(path)))
            except BadManifest as error:
                _log.warning("left off the shelf: %s", error)
        for signed in [signed for signed in self._by_id.values() if _stem(signed) in self._withdrawn]:
            self._take_off(signed)  # it was killed in between

    def announce(self, signed: Signed) -> dict[str, int]:
        """Put a manifest on the shelf; return the blobs that are not whole here, and how much of each is.

        Raises ``ShelfRefused`` for a name that another key took first, a manifest that its publisher
        withdrew, or too many of them.
        """
        with self._lock:
            if _stem(signed) in self._withdrawn:
                raise ShelfRefused(
                    f"{signed.name} {signed.id[:12]}… was withdrawn by who published it; a new version of it "
                    "can be published."
                )
            taken = self._named(signed.name)
            if taken is not None and taken.signer != signed.signer:
                raise ShelfRefused(
                    f"The name {signed.name} belongs to {taken.signer[:16]}… in this federation, who was "
                    "first; publish it under another name."
                )
            if signed.id not in self._by_id and len(self._by_id) >= _MANIFESTS:
                raise ShelfRefused(f"The shelf holds {_MANIFESTS:,} manifests already; ask its operator.")
            atomic.write_bytes(self.folder / "manifests" / f"{signed.id}.json", signed.to_bytes())
            self._put(signed)
        return self.missing(signed)

    def withdraw(self, statement: Withdrawal) -> None:
        """Take a manifest off the shelf for good, and the blobs that no other one names.

        Raises ``NotOnShelf``, and ``ShelfRefused`` where another key published it.
        """
        with self._lock:
            signed = self._by_id.get(statement.id)
            if signed is None:
                raise NotOnShelf(f"No manifest {statement.id[:12]}… is published in this federation.")
            if not statement.of(signed):
                raise ShelfRefused(
                    f"{signed.name} was published by {signed.signer[:16]}…, and only they can withdraw it."
                )
            if len(self._withdrawn) >= _WITHDRAWN:
                raise ShelfRefused(f"{_WITHDRAWN:,} manifests were withdrawn already; ask the operator.")
            data = statement.to_bytes()
            atomic.write_bytes(self.folder / "withdrawn" / f"{_stem(signed)}.json", data)
            self._withdrawn.add(_stem(signed))
            self._take_off(signed)

    def find(self, name_or_id: str) -> Signed:
        """Return the manifest of that id, or the latest of that name. Raises ``NotOnShelf``."""
        with self._lock:
            found = self._by_id.get(name_or_id) or self._named(name_or_id)
        if found is None:
            raise NotOnShelf(
                f"Nobody published a specialist {name_or_id[:80]!r} in this federation; "
                "`sharedllm specialist list --federation` says what there is."
            )
        return found

    def with_weights(self, sha256: str) -> Signed:
        """Return a manifest whose weights have this hash, whole ones first. Raises ``NotOnShelf``."""
        with self._lock:
            found = [signed for signed in self._by_id.values() if signed.body.weights_sha256 == sha256]
        if not found:
            raise NotOnShelf(
                f"Nobody published a model with the weights {sha256[:12]}… in this federation; publish it "
                "with `sharedllm specialist publish`."
            )
        return min(found, key=lambda signed: len(self.missing(signed)))

    def missing(self, signed: Signed) -> dict[str, int]:
        """Say which blobs of it are not whole here, and how many bytes of each have arrived."""
        return {
            sha256: self.blobs.arrived_bytes(sha256)
            for sha256, size in signed.blobs.items()
            if self._size(sha256) != size
        }

    def manifests(self) -> dict[str, bytes]:
        """Every signed manifest, by id."""
        with self._lock:
            return {id: signed.to_bytes() for id, signed in self._by_id.items()}

    def listing(self) -> list[dict[str, Any]]:
        """Describe the latest manifest of each name, by name."""
        with self._lock:
            latest = {signed.name: signed for signed in self._by_id.values()}
        return [
            {
                "name": name,
                "id": signed.id,
                "signer": signed.signer,
                "adapter": signed.body.adapter.method if signed.body.adapter else "none",
                "bytes": sum(signed.blobs.values()),
                "missing": sorted(self.missing(signed)),
            }
            for name, signed in sorted(latest.items())
        ]

    def blob(self, sha256: str) -> Path:
        """Say where a whole blob is. Raises ``NotOnShelf``."""
        if self._size(sha256) is None:
            raise NotOnShelf(f"The blob {sha256[:12]}… is not on this federation's shelf.")
        return self.blobs.path(sha256)

    def promise(self, sha256: str, size: int) -> None:
        """Make room for a blob that is about to come; ``settle`` it when it came or did not.

        Raises ``ShelfRefused`` unless a manifest announced it with this size, or if there is no room, and
        ``BlobBusy`` while it comes from somebody else.
        """
        with self._lock:
            announced = {signed.blobs.get(sha256) for signed in self._by_id.values()}
            if size not in announced:
                raise ShelfRefused(
                    f"No manifest on this shelf announces {size:,} bytes of blob {sha256[:12]}…; publish the "
                    "manifest first."
                )
            if sha256 in self._promised:
                raise BlobBusy(f"Blob {sha256} is being received already; try again later.")
            taken = self._taken_bytes(without=sha256) + sum(self._promised.values())
            if taken + size > self.quota_bytes:
                raise ShelfRefused(
                    f"The shelf holds {taken:,} of {self.quota_bytes:,} bytes, and {size:,} more do not fit; "
                    "ask its operator for room."
                )
            self._promised[sha256] = size

    def settle(self, sha256: str) -> None:
        """Give back the room that was promised: what arrived is counted on the disk."""
        with self._lock:
            self._promised.pop(sha256, None)
            self._sweep([sha256])  # its manifest may have been withdrawn meanwhile

    def _take_off(self, signed: Signed) -> None:
        """Its file goes last, so that whoever is killed in between begins anew."""
        del self._by_id[signed.id]
        self._sweep(signed.blobs)
        (self.folder / "manifests" / f"{signed.id}.json").unlink(missing_ok=True)

    def _sweep(self, blobs: Iterable[str]) -> None:
        """Remove those that no manifest names and that do not just arrive."""
        named = {sha256 for signed in self._by_id.values() for sha256 in signed.blobs}
        for sha256 in set(blobs) - named - self._promised.keys():
            self.blobs.remove(sha256)

    def _put(self, signed: Signed) -> None:
        # last of all, so that a name means what was announced last
        self._by_id.pop(signed.id, None)
        self._by_id[signed.id] = signed

    def _named(self, name: str) -> Signed | None:
        return next((signed for signed in reversed(self._by_id.values()) if signed.name == name), None)

    def _size(self, sha256: str) -> int | None:
        try:
            return self.blobs.path(sha256).stat().st_size
        except (FileNotFoundError, ValueError):
            return None

    def _taken_bytes(self, without: str) -> int:
        """What lies on the disk, but of blobs that are promised, or about to be."""
        names = {sha256 for signed in self._by_id.values() for sha256 in signed.blobs}
        counted = names - self._promised.keys() - {without}
        return sum(self._size(name) or self.blobs.arrived_bytes(name) for name in counted)


def _stem(signed: Signed) -> str:
    """What a withdrawal's file is called: an id says nothing of who signed."""
    return f"{signed.id}.{signed.signer}"
