"""A node's state folder, and files in it that appear whole, readable from the first byte by whom they may be.

*Covered*: another user of the machine who lists or opens the files; a crash, a full disk or an interrupt
while one is written; two processes that make the same key at once. *Not covered*: root, backups, an
unencrypted disk.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from sharedllm.errors import WriteFailed
from sharedllm.store import atomic

__all__ = ["create_secret", "state_root", "write_public", "write_secret"]


def state_root() -> Path:
    """Where nodes of this user keep their state: ``$SHAREDLLM_STATE``, else ``$XDG_STATE_HOME/sharedllm``."""
    if chosen := os.environ.get("SHAREDLLM_STATE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "sharedllm"


def write_secret(path: Path, data: bytes) -> None:
    """Write ``data`` so that only this user can ever read it (0600), whole or not at all.

    Raises ``WriteFailed`` when the disk refuses; ``path`` is then as it was.
    """
    _write(path, data, 0o600, replace=True)


def create_secret(path: Path, data: bytes) -> bool:
    """As ``write_secret`` if ``path`` does not exist yet; False, and nothing written, if it does."""
    return _write(path, data, 0o600, replace=False)


def write_public(path: Path, data: bytes) -> None:
    """Write ``data`` for everyone to read (0644), whole or not at all.

    Raises ``WriteFailed`` when the disk refuses; ``path`` is then as it was.
    """
    _write(path, data, 0o644, replace=True)


def _write(path: Path, data: bytes, mode: int, *, replace: bool) -> bool:
    temporary: Path | None = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)  # made 0600
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            try:
                # a link, unlike a rename, fails if another process was first
                path.hardlink_to(temporary)
            except FileExistsError:
                return False
        atomic.sync(path.parent)
    except OSError as error:
        raise WriteFailed(
            f"{path} could not be written ({error.strerror}); nothing half-written was left. "
            "Free some space, or point SHAREDLLM_STATE at a folder that can be written to, and try again."
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return True
