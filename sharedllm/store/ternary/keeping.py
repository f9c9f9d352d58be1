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
from sharedllm.store.blobs import Blobs
from sharedllm.store.conversion import described, empty, refuse_nan
from sharedllm.store.manifest import Manifest
from sharedllm.store.ternary import file
from sharedllm.store.ternary.file import Opened, Table, Weight

__all__ = ["keep_ternary", "take"]


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


def take(name: str, path: Path) -> Manifest:
    """Store a copy of a ternary file, every byte checked; raises what ``keep_ternary`` raises."""
    opened = file.read(path)
    empty(opened.config, opened.shapes, str(path))
    for key in opened:
        refuse_nan(key, opened.restored(key), str(path))
    return _described(name, opened, Blobs().put_file(path))


def _described(name: str, opened: Opened, sha256: str) -> Manifest:
    tokenizer = Tokenizer.from_bytes(opened.tokenizer_bytes())
    if tokenizer.vocab_size > opened.config.vocab_size:
        raise BadModelFile(
            f"{name} has a tokenizer of {tokenizer.vocab_size} tokens, but embeddings for "
            f"{opened.config.vocab_size}; its parts don't belong together."
        )
    hashes = {"weights": sha256, "tokenizer": Blobs().put_bytes(opened.tokenizer_bytes())}
    return described(name, opened.config, hashes, file.DTYPE, opened.licence, opened.provenance)
