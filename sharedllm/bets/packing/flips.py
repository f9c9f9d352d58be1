"""What a reader does with a ternary file in which one byte was changed, coded or not."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sharedllm.errors import BadModelFile
from sharedllm.store import ternary

__all__ = ["Flips", "flipped"]


@dataclasses.dataclass(frozen=True)
class Flips:
    """Of so many changed bytes: ``noticed``, ``harmless`` (the same tensors came back), and ``unnoticed``."""

    noticed: int
    harmless: int
    unnoticed: int


def flipped(path: Path, n: int, seed: int, *, coded: bool) -> Flips:
    """Change one byte at each of ``n`` random places of a ternary file, or of its coded form, and read it."""
    draw, whole = np.random.default_rng(seed), path.read_bytes()
    outcomes = {"noticed": 0, "harmless": 0, "unnoticed": 0}
    with tempfile.TemporaryDirectory() as folder:
        damaged, read = Path(folder) / "damaged", Path(folder) / "read"
        if coded:
            with damaged.open("wb") as sink:
                ternary.coding.encode(path, sink)
        else:
            damaged.write_bytes(whole)
        for at in draw.integers(damaged.stat().st_size, size=n):
            change = int(draw.integers(1, 256))
            _change(damaged, int(at), change)
            outcomes[_outcome(lambda: _read(damaged, read, coded), whole)] += 1
            _change(damaged, int(at), change)
    return Flips(**outcomes)


def _change(path: Path, at: int, change: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ change]))


def _read(damaged: Path, read: Path, coded: bool) -> bytes:
    if coded:
        with read.open("wb") as sink:
            ternary.coding.decode(damaged, sink)
    path = read if coded else damaged
    ternary.read(path).check()
    return path.read_bytes()


def _outcome(act: Callable[[], bytes], whole: bytes) -> str:
    try:
        return "harmless" if act() == whole else "unnoticed"
    except BadModelFile:
        return "noticed"
