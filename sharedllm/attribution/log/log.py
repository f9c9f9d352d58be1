"""An append-only Merkle log in a folder: batches in, signed checkpoints and proofs out, nothing ever lost.

A batch is durable with one sync, that of the journal; only then is its checkpoint handed out. Full tiles and
bundles are written (and synced) when 256 entries fill them, and the journal then begins anew. Partial tiles
and the file ``checkpoint`` are for readers of the folder, follow from the journal, and are written by
``publish``.

*Covered*: SIGKILL and power cuts at any byte (see ``journal``); a full disk; two writers; a folder of which a
part was put back to an earlier state or changed (refused on opening, or when it is read). *Not covered*: the
whole folder put back to an earlier state: only somebody who holds a later checkpoint can see that
(``Checkpoint.check_extends``). Partial tiles of earlier checkpoints are removed, so a folder served to others
over HTTP, as the specification means it, would have to keep copies of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.attribution.log import proofs
from sharedllm.attribution.log.checkpoint import Checkpoint, Proof
from sharedllm.attribution.log.hashing import HASH_BYTES, leaf_hash, root
from sharedllm.attribution.log.journal import PARTIAL, Frame, Journal, write_file
from sharedllm.attribution.log.notes import LogKey, public_bytes
from sharedllm.attribution.log.tiles import (
    WIDTH,
    Tree,
    bundle,
    bundle_path,
    tile_path,
    unbundle,
)
from sharedllm.errors import BadLog, WriteFailed
from sharedllm.store import atomic

__all__ = ["Log"]

_log = logging.getLogger(__name__)


class Log:
    """The log called ``name`` in ``folder``, made if there is none; one process at a time.

    ``note`` is the latest signed checkpoint, ``size`` how many entries it covers. Raises ``BadLog`` for a
    folder that is in use, damaged or of another key, and ``WriteFailed`` when the disk refuses.
    """

    def __init__(self, folder: Path, name: str, private: Ed25519PrivateKey) -> None:
        self.key = LogKey(name, public_bytes(private))
        self.folder = folder
        self._private = private
        self._tree = Tree()
        self._base, self._held = 0, list[bytes]()  # entries from the last full bundle on
        self._filled: dict[tuple[int, int], bytes] = {}  # full tiles that are in the journal alone
        self._published = b""
        self._read_bundle = functools.lru_cache(maxsize=4)(self._read_bundle_at)
        with contextlib.ExitStack() as undo:
            undo.enter_context(_alone(folder))
            for left in folder.rglob(f".*{PARTIAL}"):
                left.unlink(missing_ok=True)
            self._partials = {path.relative_to(folder).as_posix() for path in folder.glob("tile/**/*.p/*")}
            self._journal = Journal(folder / "journal")
            undo.callback(self._journal.close)
            self.note = self._recover(self._journal.frames)
            self._journal.frames = []
            self._check_published()
            self._settle()
            self._exit = undo.pop_all()

    @property
    def size(self) -> int:
        """How many entries there are, all of them durable."""
        return self._tree.size

    @property
    def published(self) -> bool:
        """Whether a reader of the folder sees all there is."""
        return self._published == self.note

    @property
    def checkpoint(self) -> Checkpoint:
        """What ``note`` signs."""
        return Checkpoint(self.key.name, self.size, self._tree.root)

    def append(self, entries: Sequence[bytes]) -> int:
        """Append a batch, durably, and give the index of its first entry: all of it is in, or nothing.

        Raises ``WriteFailed`` when the disk refuses, ``BadLog`` for an entry of more than 65,535 bytes.
        """
        first, before, filled = self.size, self._tree, self._filled
        tree, full = self._tree.extended([leaf_hash(entry) for entry in entries])
        self._tree, self._filled = tree, {**filled, **full}
        try:
            note = self.checkpoint.signed(self._private)
            self._journal.append(Frame(first, tuple(entries), note))
        except BaseException:
            self._tree, self._filled = before, filled
            raise
        self.note = note
        self._held += entries
        self._settle()
        return first

    def entry(self, index: int) -> bytes:
        """One entry; raises ``BadLog`` for one that there is not, or that is not what was logged."""
        if not 0 <= index < self.size:
            raise BadLog(f"The log has {self.size:,} entries, and so no entry {index:,}.")
        if index >= self._base:
            return self._held[index - self._base]
        return self._read_bundle(index // WIDTH)[index % WIDTH]

    def prove(self, index: int) -> Proof:
        """Prove that an entry is in the log, under its latest checkpoint."""
        return Proof(index, tuple(proofs.inclusion(index, self.size, self._node)), self.note)

    def consistency(self, old: int) -> list[bytes]:
        """Prove that the log only grew since it had ``old`` entries."""
        return proofs.consistency(old, self.size, self._node)

    def publish(self) -> None:
        """Write partial tiles and the checkpoint for readers of the folder; raises ``WriteFailed``."""
        if self.published:
            return
        width = self.size % WIDTH
        now = {bundle_path(self.size // WIDTH, width): bundle(self._held[:width])} if width else {}
        for level, edge in enumerate(self._tree.edges):
            if edge:
                index = (self.size >> 8 * level) // WIDTH
                now[tile_path(level, index, len(edge))] = b"".join(edge)
        for path, data in now.items():
            write_file(self.folder / path, data, sync=False)
        write_file(self.folder / "checkpoint", self.note, sync=False)
        self._published = self.note
        for old in self._partials - set(now):
            with contextlib.suppress(OSError):
                (self.folder / old).unlink(missing_ok=True)
                (self.folder / old).parent.rmdir()  # if it is empty
        self._partials = set(now)

    def close(self) -> None:
        """Publish what there is, and let others open the log."""
        with contextlib.suppress(WriteFailed):
            self.publish()
        self._exit.close()

    def _node(self, level: int, index: int) -> bytes:
        return self._tree.node(level, index, self._tile)

    def _tile(self, level: int, index: int) -> bytes:
        """A full tile."""
        if (level, index) in self._filled:
            return self._filled[level, index]
        data = self._read(tile_path(level, index))
        if len(data) != WIDTH * HASH_BYTES:
            raise BadLog(f"{self.folder / tile_path(level, index)} is {len(data):,} bytes long; restore it.")
        return data

    def _read_bundle_at(self, index: int) -> list[bytes]:
        entries = unbundle(self._read(bundle_path(index)))
        if b"".join(map(leaf_hash, entries)) != self._tile(0, index):
            raise BadLog(f"The entries in {self.folder / bundle_path(index)} are not those that were logged.")
        return entries

    def _read(self, path: str) -> bytes:
        try:
            return (self.folder / path).read_bytes()
        except OSError as error:
            raise BadLog(
                f"{self.folder / path} can't be read ({error.strerror}), and the log is not whole without "
                "it. Restore it from a copy."
            ) from error

    def _recover(self, frames: Sequence[Frame]) -> bytes:
        """Rebuild the edge from full tiles and the journal, and check it against what was signed."""
        if not frames:
            if (self.folder / "tile").exists():
                raise BadLog(
                    f"{self.folder} has tiles but no journal; restore all of it, or use a new folder."
                )
            return self.checkpoint.signed(self._private)
        self._base = frames[0].first
        if self._base % WIDTH:
            raise BadLog(
                f"The journal in {self.folder} does not begin where a bundle does; restore the folder."
            )
        self._tree = Tree.of_full(self._base // WIDTH, self._tile)
        for frame in frames:
            if frame.first != self.size:
                raise BadLog(
                    f"The journal in {self.folder} goes from entry {self.size:,} to {frame.first:,}."
                )
            self._tree, full = self._tree.extended([leaf_hash(entry) for entry in frame.entries])
            self._filled |= full
            self._held += frame.entries
            if Checkpoint.verified(frame.note, self.key) != self.checkpoint:
                raise BadLog(
                    f"The first {self.size:,} entries in {self.folder} are not those that were signed; tiles "
                    "or the journal were changed. Restore the folder from a copy."
                )
        return frames[-1].note

    def _check_published(self) -> None:
        """Refuse to go on with less than what a reader of the folder was told."""
        try:
            note = (self.folder / "checkpoint").read_bytes()
            told = Checkpoint.verified(note, self.key)
        except (OSError, BadLog):
            return  # never published, or cut short by a power cut; the journal knows better
        if told.size > self.size or root(told.size, self._node) != told.root:
            raise BadLog(
                f"{self.folder} promised a log of {told.size:,} entries and holds {self.size:,} that don't "
                "bear it out: a part of it was lost or put back. Restore the folder, or use a new one."
            )
        self._published = note if note == self.note else b""

    def _settle(self) -> None:
        """Write what has become full, and begin a new journal; if that fails, the next batch tries again."""
        full = len(self._held) // WIDTH
        if not full:
            return
        try:
            for i in range(full):
                data = bundle(self._held[i * WIDTH : (i + 1) * WIDTH])
                write_file(self.folder / bundle_path(self._base // WIDTH + i), data, sync=True)
            for (level, index), tile in self._filled.items():
                write_file(self.folder / tile_path(level, index), tile, sync=True)
            base, held = self._base + full * WIDTH, self._held[full * WIDTH :]
            self._journal.begin_with(Frame(base, tuple(held), self.note))
        except WriteFailed as error:
            _log.warning("the audit log keeps its entries in the journal for now: %s", error)
            return
        self._base, self._held, self._filled = base, held, {}


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder against every other writer."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic.sync(folder.parent)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise WriteFailed(
            f"The log in {folder} can't be opened ({error.strerror}); give the folder to this user."
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadLog(
                f"Another process writes the log in {folder}; stop it, or keep this log in another folder."
            ) from error
        yield
    finally:
        os.close(handle)
