"""Ternary models come into the store: from weights in memory, or as a file that somebody made.

*Covered*: a file is read from end to end before it is taken in, so a flipped bit, NaN, or tensors that are
not those of its configuration never become a model. *Not covered*: whether the model says anything sensible.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharedllm.errors import BadModelFile
from sharedllm.model.config import Config
from sharedllm.model.tokenizer import Tokenizer
from sharedllm.store.blobs import Blobs, refuse_full_disk
from sharedllm.store.cache import home
from sharedllm.store.conversion import described, empty, refuse_nan
from sharedllm.store.manifest import Manifest
from sharedllm.store.ternary import coding, file
from sharedllm.store.ternary.file import Opened, Table, Weight

__all__ = ["is_own", "keep_ternary", "take"]


def keep_ternary(
    name: str,
    config: Config,
    tokenizer: Tokenizer,
    weights: Mapping[str, Weight],
    *,
    table: Table = "int8",
    licence: str,
    provenance: Mapping[str, Any],
) -> Manifest:
    """Store a model's ternary file and its tokenizer, under no name yet; see ``ternary.write``.

    Raises ``BadModelFile`` or ``WriteFailed``, leaving nothing.
    """
    empty(config, {key: tuple(weight.shape) for key, weight in weights.items()}, name)
    blobs = Blobs()
    sha256 = blobs.put(
        lambda sink: file.write(
            sink, config, tokenizer, weights, table=table, licence=licence, provenance=provenance
        )
    )
    return _described(name, file.read(blobs.path(sha256)), sha256)


def is_own(path: Path) -> bool:
    """Say whether the file begins as a ternary file does, coded or not."""
    return file.is_ternary(path) or coding.is_coded(path)


def take(name: str, path: Path) -> Manifest:
    """Store a ternary file, or what is in its coded form, every byte checked.

    Raises what ``keep_ternary`` and ``coding.decode`` raise.
    """
    blobs = Blobs()
    if coding.is_coded(path):
        refuse_full_disk(home(), coding.announced_bytes(path))
        sha256 = blobs.put(lambda sink: coding.decode(path, sink))
        try:
            return _taken(name, file.read(blobs.path(sha256)), sha256)
        except BadModelFile:
            blobs.remove(sha256)
            raise
    return _taken(name, file.read(path), None)


def _taken(name: str, opened: Opened, sha256: str | None) -> Manifest:
    """The manifest of a file that is whole from end to end; it becomes a blob unless it is one."""
    where = str(opened.path)
    empty(opened.config, opened.shapes, where)
    for key in opened:
        refuse_nan(key, opened.restored(key), where)
    try:
        manifest = _described(name, opened, sha256)
        manifest.to_bytes()
    except ValueError as error:
        raise BadModelFile(f"{where} says more of itself than a manifest holds ({error}).") from error
    return manifest


def _described(name: str, opened: Opened, sha256: str | None) -> Manifest:
    data = opened.tokenizer_bytes()
    tokens = Tokenizer.from_bytes(data).vocab_size
    if tokens > opened.config.vocab_size:
        raise BadModelFile(
            f"{name} has a tokenizer of {tokens} tokens, but embeddings for {opened.config.vocab_size}; its "
            "parts don't belong together."
        )
    blobs = Blobs()
    hashes = {"weights": sha256 or blobs.put_file(opened.path), "tokenizer": blobs.put_bytes(data)}
    return described(name, opened.config, hashes, file.DTYPE, opened.licence, opened.provenance)
