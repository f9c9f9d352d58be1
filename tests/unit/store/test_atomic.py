"""Files and folders appear whole or not at all, whatever goes wrong while they are written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sharedllm.errors import WriteFailed
from sharedllm.store import atomic

# A real refusal by the kernel: beyond this size, write(2) fails with EFBIG, as ENOSPC would on a full disk.
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_there_with_ordinary_permissions(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "new" / "file", b"content")
    assert (tmp_path / "new" / "file").read_bytes() == b"content"
    assert (tmp_path / "new" / "file").stat().st_mode & 0o400


def test_an_exception_in_the_body_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")

    def fail_halfway() -> None:
        with atomic.writing(path) as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_disk_that_refuses_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")
    done = run(
        LIMITED + "from pathlib import Path; from sharedllm.store import atomic\n"
        "from sharedllm.errors import WriteFailed\n"
        f"try: atomic.write_bytes(Path({str(path)!r}), b'x' * 100_000)\n"
        "except WriteFailed as error: print(error)"
    )
    assert "could not be written (File too large)" in done.stdout
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_folder_on_a_disk_that_refuses_is_not_published(tmp_path: Path) -> None:
    done = run(
        LIMITED + "from pathlib import Path; from sharedllm.store import atomic\n"
        "from sharedllm.errors import WriteFailed\n"
        "try:\n"
        f"    with atomic.folder(Path({str(tmp_path / 'result')!r})) as folder:\n"
        "        (folder / 'a').write_bytes(b'x' * 100_000)\n"
        "except WriteFailed as error: print(error)"
    )
    assert "nothing half-written was left" in done.stdout
    assert names(tmp_path) == []


def test_a_place_that_can_not_be_written_to_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteFailed, match="could not be written"):
        atomic.write_bytes(tmp_path / "file" / "below", b"")


def test_a_mistake_in_the_body_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic.writing(tmp_path / "file"):
        (tmp_path / "missing").read_bytes()


def test_remains_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    remains = tmp_path / ".result.partial"
    remains.mkdir()
    (remains / "half").write_bytes(b"")
    with atomic.folder(tmp_path / "result") as folder:
        (folder / "whole").write_bytes(b"")
    assert names(tmp_path / "result") == ["whole"]


def test_a_lock_is_released_by_the_death_of_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    run(
        "import os; from pathlib import Path; from sharedllm.store import atomic\n"
        f"atomic.locked(Path({str(lock)!r})).__enter__(); os._exit(1)"
    )
    with atomic.locked(lock):
        pass
