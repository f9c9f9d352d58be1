"""Which code, packages and machine a run had: hashes and words, read without importing anything heavy.

*Covered*: committed, uncommitted and untracked files, edits to the package or the notebook, the lock file.
*Not covered*: packages altered in place after installation; the lock says what should be there.
"""

from __future__ import annotations

import functools
import importlib.metadata
import io
import os
import platform
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

import psutil  # type: ignore[import-untyped,unused-ignore]

import sharedllm
from sharedllm.bets.result import Code, Environment, Hardware
from sharedllm.store import sha256_of

__all__ = [
    "code",
    "dirty_paths",
    "environment",
    "git",
    "hardware",
    "head",
    "is_ancestor",
    "package_sha256",
    "package_sha256_at",
]


def git(repository: Path, *arguments: str) -> bytes | None:
    """Return what ``git`` printed in ``repository``, or None where it failed or there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *arguments],
            capture_output=True,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def head(repository: Path) -> str | None:
    """Return the commit that is checked out, if there is one."""
    printed = git(repository, "rev-parse", "--verify", "HEAD")
    return None if printed is None else printed.decode().strip()


def is_ancestor(repository: Path, earlier: str, later: str) -> bool:
    """Say whether ``later`` descends from ``earlier`` (or is it)."""
    return git(repository, "merge-base", "--is-ancestor", earlier, later) is not None


def dirty_paths(repository: Path) -> list[str]:
    """List changed and untracked files, except those under a bet's ``results/``, which runs bring."""
    printed = git(repository, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all")
    if printed is None:
        return ["(not a git repository)"]
    paths = [entry[3:] for entry in printed.decode(errors="surrogateescape").split("\0") if entry]
    return sorted(path for path in paths if not PurePosixPath(path).match("catalogue/*/*/results/*"))


def package_sha256() -> str:
    """Hash every source and data file of the package, with its name."""
    root = Path(sharedllm.__file__).parent
    files = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sha256_of({path.relative_to(root).as_posix(): sha256_of(path) for path in files})


def package_sha256_at(repository: Path, commit: str) -> str | None:
    """Hash the package as ``commit`` holds it, the same way; None where it holds no package."""
    archive = git(repository, "archive", "--format=tar", commit, "sharedllm")
    if archive is None:
        return None
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        return sha256_of(
            {name.partition("/")[2]: sha256_of(file.read()) for name, file in files.items() if file}
        )


def code(repository: Path, notebook: Path) -> Code:
    """Say what code is about to run."""
    return Code(
        commit=head(repository),
        dirty=bool(dirty_paths(repository)),
        package_sha256=package_sha256(),
        notebook_sha256=sha256_of(notebook),
        executed_sha256=None,
    )


def environment(repository: Path) -> Environment:
    """Say which interpreter, torch and lock are in use."""
    lock = repository / "constraints.txt"
    try:
        torch: str | None = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = None
    return Environment(
        lock_sha256=sha256_of(lock) if lock.is_file() else None,
        python=platform.python_version(),
        torch=torch,
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


@functools.cache
def hardware() -> Hardware:
    """Say what machine this is, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Hardware(_cpu(), cores, psutil.virtual_memory().total, _accelerator())


def _cpu() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return " ".join(value.split())
    return platform.processor() or platform.machine()


def _accelerator() -> str | None:
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in _lines(path):
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return "Apple GPU" if platform.system() == "Darwin" and platform.machine() == "arm64" else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
