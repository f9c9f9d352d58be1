"""The bank: the gains of many users in one tensor, so that a batch of users is one gather.

A row per user, G norms of width D; row 0 is the base. What does not fit the tensor waits on disk, least
recently used first, in one file of records of one size: a user comes back by one read into the row, and goes
by at most one write (none, if what is on disk is what is in memory).

The file is a cache, not a home: it has no name, so that it is gone with the process, even killed, and nobody
else reads it; an adapter's home is its own file (``adapters.library``). A row that comes back is bit for bit
what was put.

*Covered*: gains of another shape, NaN and infinity; a user who was never put; more users in one batch than
rows; a disk that is full or fails (nobody loses a row by it); calls from several threads. *Not covered*:
norm+bias, LoRA and the other methods; who may ask for whose row.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sharedllm.adapters.file import Adapter
from sharedllm.adapters.twin import same_names
from sharedllm.errors import BadAdapter, BankFull, UnknownName, WriteFailed
from sharedllm.model.transformer import Transformer

__all__ = ["Bank", "base_gains", "delta_gains"]


def base_gains(model: Transformer) -> Tensor:
    """A model's own gains, ``[G, D]`` in fp32, in the order of ``Transformer.gains``."""
    return torch.stack([gain.detach().float() for gain in model.gains().values()])


def delta_gains(model: Transformer, adapter: Adapter) -> Tensor:
    """What a norm adapter adds to ``base_gains``: ``[G, D]``. Raises ``BadAdapter`` for other adapters."""
    if adapter.method != "norm":
        raise BadAdapter(f"A bank holds norm adapters alone, and this one is {adapter.method}; apply it.")
    same_names("norm", set(adapter.tensors), set(model.gains()))
    for name, gain in model.gains().items():
        if adapter.tensors[name].shape != gain.shape:
            raise BadAdapter(
                f"The adapter changes {name} by a tensor of shape {tuple(adapter.tensors[name].shape)}, but "
                f"the model's has {tuple(gain.shape)}. Load the base that it was fitted on."
            )
    return torch.stack([adapter.tensors[name].float() for name in model.gains()])


class Bank:
    """``capacity`` users in memory, any number on disk if there is a ``folder``. Any thread may call.

    Memory is taken page by page as rows are first used. Finding a row takes the same time however many there
    are.
    """

    def __init__(self, base_GD: Tensor, capacity: int, folder: Path | None = None) -> None:
        if capacity < 1:
            raise BankFull(f"A bank was given room for {capacity} users; it needs room for one at least.")
        with torch.inference_mode(False):
            self._gains_UGD = torch.empty(capacity + 1, *base_GD.shape)
        self._gains_UGD[0] = base_GD
        self.capacity = capacity
        self._rows: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._free: list[int] = []
        self._disk = None if folder is None else _Records(folder, self._gains_UGD[0].nbytes)
        self._turn = threading.RLock()

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self._gains_UGD.nbytes

    @property
    def users(self) -> int:
        """Users in memory and on disk."""
        with self._turn:
            return len(self._rows.keys() | self._on_disk.keys())

    def __contains__(self, key: str) -> bool:
        with self._turn:
            return key in self._rows or key in self._on_disk

    @property
    def _on_disk(self) -> dict[str, int]:
        return {} if self._disk is None else self._disk.places

    def put(self, key: str, delta_GD: Tensor) -> None:
        """Let ``key`` have the base's gains and ``delta_GD``, in place of what it had.

        Raises ``BadAdapter`` for another shape or NaN, ``BankFull`` without a folder, ``WriteFailed``.
        """
        if delta_GD.shape != self._gains_UGD.shape[1:]:
            raise BadAdapter(
                f"Gains of shape {tuple(delta_GD.shape)} were put where {tuple(self._gains_UGD.shape[1:])} "
                "belong; use an adapter of this base."
            )
        if not bool(delta_GD.isfinite().all()):
            raise BadAdapter("Gains that hold NaN or infinity were put; fit the adapter again.")
        with self._turn:
            row = self._rows[key] if key in self._rows else self._taken()
            torch.add(self._gains_UGD[0], delta_GD.float(), out=self._gains_UGD[row])
            self._keep(key, row)
            if self._disk is not None:
                self._disk.drop(key)

    def row(self, key: str | None) -> int:
        """The row of ``key``, in memory from now on; 0 for None.

        It stays that user's until ``capacity`` others were asked for or put; ``gather`` is for those who
        share the bank. Raises ``UnknownName``, ``WriteFailed``.
        """
        if key is None:
            return 0
        with self._turn:
            row = self._rows.get(key)
            if row is None:
                row = self._fetched(key)
            self._keep(key, row)
            return row

    def drop(self, key: str) -> None:
        """Forget ``key``, if it is known."""
        with self._turn:
            row = self._rows.pop(key, None)
            if row is not None:
                self._free.append(row)
            if self._disk is not None:
                self._disk.drop(key)

    def gains(self, norm: int, rows_R: Tensor) -> Tensor:
        """One norm's gains for each of R rows: ``[R, D]``, one gather."""
        return self._gains_UGD[:, norm].index_select(0, rows_R)

    def gather(self, keys: Sequence[str | None]) -> Tensor:
        """All gains of a batch of users, ``gains_BGD`` as ``Transformer`` takes them: a copy, which stays.

        Raises ``UnknownName``, ``BankFull`` for more users than rows, ``WriteFailed``.
        """
        users = len(set(keys) - {None})
        if users > self.capacity:
            raise BankFull(f"A batch of {users} users was asked for; this bank has {self.capacity} rows.")
        with self._turn:
            rows_R = torch.tensor([self.row(key) for key in keys], dtype=torch.long)
            return self._gains_UGD.index_select(0, rows_R)

    def _keep(self, key: str, row: int) -> None:
        self._rows[key] = row
        self._rows.move_to_end(key)

    def _taken(self) -> int:
        """A row for a newcomer: one that was dropped, one that was never used, or the least recently used."""
        if self._free:
            return self._free.pop()
        if len(self._rows) < self.capacity:
            return len(self._rows) + 1
        if self._disk is None:
            raise BankFull(
                f"{self.capacity} users are in this bank and there is no folder for more; drop one, or give "
                "a folder."
            )
        key, row = next(iter(self._rows.items()))
        self._disk.write(key, self._gains_UGD[row])
        del self._rows[key]
        return row

    def _fetched(self, key: str) -> int:
        if self._disk is None or key not in self._disk.places:
            raise UnknownName(f"Nobody put gains for {key!r} into this bank; put them first.")
        row = self._taken()
        try:
            self._disk.read(key, self._gains_UGD[row])
        except BaseException:
            self._free.append(row)
            raise
        return row


class _Records:
    """A nameless file of records of one size; what was written stays until it is dropped."""

    def __init__(self, folder: Path, size: int) -> None:
        self._size = size
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 it lives with the bank
        except OSError as error:
            raise WriteFailed(
                f"No file for more users can be made in {folder} ({error.strerror}); give another folder."
            ) from error
        weakref.finalize(self, self._file.close)
        self.places: dict[str, int] = {}
        self._free: list[int] = []
        self._end = 0

    def write(self, key: str, row_GD: Tensor) -> None:
        """Write a record, unless it is there. Raises ``WriteFailed``, and the record is then not there."""
        if key in self.places:
            return
        place = self._free.pop() if self._free else self._end
        try:
            self._all(os.pwritev, row_GD, place)
        except OSError as error:
            self._free += [place] if place < self._end else []
            raise WriteFailed(
                f"The disk took no more users of this bank ({error.strerror}); free some space, or give the "
                "bank more rows. Everyone who was in it still is."
            ) from error
        self.places[key] = place
        self._end = max(self._end, place + self._size)

    def read(self, key: str, row_GD: Tensor) -> None:
        """Read a record into ``row_GD``. Raises ``WriteFailed`` when the disk fails."""
        try:
            self._all(os.preadv, row_GD, self.places[key])
        except OSError as error:
            raise WriteFailed(
                f"The disk does not give a user of this bank back ({error.strerror}); put the adapter again."
            ) from error

    def drop(self, key: str) -> None:
        """Forget a record, if it is there; its place is given to another."""
        place = self.places.pop(key, None)
        self._free += [] if place is None else [place]

    def _all(self, call: Callable[[int, list[memoryview], int], int], row_GD: Tensor, place: int) -> None:
        view, done = row_GD.numpy().data.cast("B"), 0
        while done < self._size:
            count = call(self._file.fileno(), [view[done:]], place + done)
            if not count:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            done += count
