"""The adapters that a person keeps: one file per name in ``store.home()/adapters``, found by that name.

What a fit said of an adapter (its held-out gain, its learning rate, what rounding costs) rides inside the
file, so that one copied elsewhere still says what it is. *Never in it*: the text, or the names of the files
that it was fitted on, since adapters are lent to others' machines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharedllm.adapters.file import Adapter, Header, header, read, write
from sharedllm.errors import UnknownName, WriteFailed
from sharedllm.store import home

__all__ = ["about", "check_name", "load", "names", "path_of", "remove", "save"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SUFFIX = ".safetensors"


def save(name: str, adapter: Adapter, about: Mapping[str, Any], precision: str = "fp32") -> Path:
    """Keep an adapter under ``name``; an earlier one of that name is replaced, atomically.

    ``about`` are JSON values. Raises ``UnknownName`` for a name that can't be used, and what ``write``
    raises.
    """
    check_name(name)
    path = _folder() / f"{name}{_SUFFIX}"
    write(path, adapter, precision, about)
    return path


def load(name: str) -> Adapter:
    """Read the adapter called ``name``, whichever base it is for (``base_sha256`` says).

    Raises ``UnknownName``, ``BadAdapter`` for a damaged file.
    """
    path = path_of(name)
    return read(path, header(path).base_sha256)


def about(name: str) -> Header:
    """Say what the adapter called ``name`` is, without reading its numbers; raises what ``load`` raises."""
    return header(path_of(name))


def names() -> list[str]:
    """Name the adapters that are here, sorted."""
    found = (path.name.removesuffix(_SUFFIX) for path in _folder().glob(f"*{_SUFFIX}"))
    return sorted(name for name in found if _NAME.fullmatch(name))


def remove(name: str) -> None:
    """Delete the adapter called ``name``. Raises ``UnknownName``, ``WriteFailed``."""
    path = path_of(name)
    try:
        path.unlink()
    except OSError as error:
        raise WriteFailed(f"{path} could not be removed ({error.strerror}).") from error


def path_of(name: str) -> Path:
    """Say where the adapter called ``name`` is. Raises ``UnknownName``, listing those that there are."""
    path = _folder() / f"{name}{_SUFFIX}"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise UnknownName(
            f"There is no adapter {name!r}; there are: {', '.join(names()) or 'none'}. "
            "Make one with `sharedllm adapter fit`."
        )
    return path


def check_name(name: str) -> None:
    """Raise ``UnknownName`` for what can't name an adapter: it becomes a file's name and a served model's."""
    if not _NAME.fullmatch(name):
        raise UnknownName(
            f"{name!r} can't name an adapter; use up to 64 lower-case letters, digits, dots, dashes and "
            "underscores, beginning with a letter or digit."
        )


def _folder() -> Path:
    return home() / "adapters"
