"""Where the store lives, what a thing is called (a SHA-256), and results of work kept under such a name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sharedllm.store import atomic

__all__ = ["cached", "canonical_json", "home", "sha256_of"]

_CHUNK_BYTES = 1 << 20


def home() -> Path:
    """Say where the store is: ``SHAREDLLM_HOME``, or ``sharedllm`` in the user's cache directory (XDG)."""
    given = os.environ.get("SHAREDLLM_HOME")
    if given:
        return Path(given).expanduser().absolute()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "sharedllm"


def canonical_json(obj: Any) -> bytes:
    """Write ``obj`` the one way that hashes are taken of: sorted keys, no spaces, UTF-8.

    Raises ``ValueError`` for NaN or infinity, ``TypeError`` for what JSON can't hold, and for a key that is
    no string (``json`` would turn ``1`` and ``"1"`` into the same key).
    """
    _refuse_odd_keys(obj)
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256_of(what: Any) -> str:
    """Hash bytes as they are, a ``Path`` by its file's content, all else by its ``canonical_json``."""
    if isinstance(what, Path):
        digest = hashlib.sha256()
        with what.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()
    data = what if isinstance(what, bytes) else canonical_json(what)
    return hashlib.sha256(data).hexdigest()


def cached(kind: str, key: dict[str, Any], compute: Callable[[Path], None]) -> Path:
    """Return the folder that holds the result for ``key``, computing it the first time only.

    ``compute`` writes into the empty folder it is given; that folder is published under
    ``home()/cache/<kind>/<sha256 of key>``, with ``key.json`` beside its files, when it returns, and removed
    when it raises. A second process that wants the same result waits for the first. Raises ``WriteFailed``.
    """
    name = sha256_of(key)
    result = home() / "cache" / kind / name
    if result.is_dir():
        return result
    with atomic.locked(home() / "locks" / f"{kind}-{name}"):
        if not result.is_dir():
            with atomic.folder(result) as temporary:
                compute(temporary)
                (temporary / "key.json").write_bytes(canonical_json(key))
    return result


def _refuse_odd_keys(obj: Any) -> None:
    if isinstance(obj, dict):
        for key, value in obj.items():
            if not isinstance(key, str):
                raise TypeError(f"A key of canonical JSON is a string; {key!r} is {type(key).__name__}.")
            _refuse_odd_keys(value)
    elif isinstance(obj, list | tuple):
        for value in obj:
            _refuse_odd_keys(value)
