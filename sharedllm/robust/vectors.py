"""K vectors of P numbers, read a block of columns at a time, so that no rule needs them all in memory.

A rule reads them twice: once for the inner products G_KK, from which every distance follows, once for the
columns that it combines. Sums over P are taken in fp64. Files are read, not mapped: each page of a map that
was touched counts as resident until the system takes it back.

*Covered*: any K and P; at most ``BLOCK_BYTES`` of numbers at a time. *Not covered*: vectors whose spread is
below 1e-7 of their length, whose distances drown in the rounding of G (subtract what they share first).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from sharedllm.errors import BadAggregate

__all__ = ["BLOCK_BYTES", "Files", "Held", "Vectors", "blocks", "gram", "held", "squared_distances"]

BLOCK_BYTES = 1 << 27


class Vectors(Protocol):
    """Where K vectors of P numbers come from."""

    @property
    def shape(self) -> tuple[int, int]:
        """Say (K, P)."""

    @property
    def dtype(self) -> torch.dtype:
        """Say what the numbers are."""

    def block(self, start: int, stop: int) -> Tensor:
        """Give the columns ``[start, stop)`` of all vectors, as ``x_KC``."""


class Held:
    """Vectors in memory. Raises ``BadAggregate`` unless they are a table of floating-point numbers."""

    def __init__(self, vectors_KP: Tensor) -> None:
        if vectors_KP.ndim != 2 or vectors_KP.numel() == 0 or not vectors_KP.is_floating_point():
            raise BadAggregate(
                f"Updates of shape {tuple(vectors_KP.shape)} and type {vectors_KP.dtype} are no table of "
                "workers × numbers; stack one floating-point vector per worker."
            )
        self._vectors_KP = vectors_KP.detach()

    @property
    def shape(self) -> tuple[int, int]:
        return self._vectors_KP.shape[0], self._vectors_KP.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self._vectors_KP.dtype

    def block(self, start: int, stop: int) -> Tensor:
        return self._vectors_KP[:, start:stop]


class Files:
    """One file per worker, which holds ``size`` numbers of ``dtype`` and nothing else.

    Raises ``BadAggregate`` where there is no file, or one of another length.
    """

    def __init__(self, paths: Sequence[Path], size: int, dtype: torch.dtype = torch.float32) -> None:
        wanted_bytes = size * dtype.itemsize
        for path in paths:
            found_bytes = path.stat().st_size if path.is_file() else None
            if found_bytes != wanted_bytes:
                raise BadAggregate(
                    f"{path} should hold {size:,} numbers of {dtype} ({wanted_bytes:,} bytes), but has "
                    f"{'no bytes: there is no such file' if found_bytes is None else f'{found_bytes:,}'}."
                )
        if not paths or size < 1:
            raise BadAggregate(
                "There is nothing to aggregate: give one file per worker, of at least one number."
            )
        self._paths, self._size, self._dtype = tuple(paths), size, dtype

    @property
    def shape(self) -> tuple[int, int]:
        return len(self._paths), self._size

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    def block(self, start: int, stop: int) -> Tensor:
        x_KC = torch.empty(len(self._paths), stop - start, dtype=self._dtype)
        for path, row_C in zip(self._paths, x_KC, strict=True):
            _fill(path, row_C, start * self._dtype.itemsize)
        return x_KC


def held(vectors: Tensor | Vectors) -> Vectors:
    """Give ``vectors`` as a source of columns; a tensor is one already in memory."""
    return Held(vectors) if isinstance(vectors, Tensor) else vectors


def blocks(workers: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut ``[0, size)`` into ranges whose columns fit ``BLOCK_BYTES`` in fp64."""
    columns = max(1, BLOCK_BYTES // (8 * workers))
    for start in range(0, size, columns):
        yield start, min(start + columns, size)


def gram(vectors: Vectors, *, distances: bool = True) -> Tensor:
    """Compute all inner products, ``G_KK`` (fp64); without ``distances`` the diagonal alone.

    A vector that holds NaN or infinity, or is too long for fp64, has no finite number on the diagonal, and
    spoils its own row and column only.
    """
    workers, size = vectors.shape
    total_KK: Tensor | None = None
    for start, stop in blocks(workers, size):
        x_KC = vectors.block(start, stop).double()
        part_KK = x_KC @ x_KC.mT if distances else x_KC.square().sum(1).diag()
        total_KK = part_KK if total_KK is None else total_KK.add_(part_KK)
    assert total_KK is not None
    return total_KK


def squared_distances(gram_KK: Tensor) -> Tensor:
    """Turn inner products into squared distances, ``d2_KK``: never below zero, exactly zero to itself."""
    squares_K = gram_KK.diagonal()
    return (squares_K[:, None] + squares_K - 2 * gram_KK).clamp_min_(0.0).fill_diagonal_(0.0)


def _fill(path: Path, row_C: Tensor, offset: int) -> None:
    view = row_C.view(torch.uint8).numpy().data
    with path.open("rb", buffering=0) as file:
        while view:
            count = os.preadv(file.fileno(), [view], offset)
            if count == 0:
                raise BadAggregate(
                    f"{path} became shorter while it was read; have the worker write it again."
                )
            view, offset = view[count:], offset + count
