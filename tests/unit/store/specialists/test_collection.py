"""What nothing names and nobody uses is removed; everything else survives, whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharedllm import adapters, store
from sharedllm.errors import BadModelFile
from sharedllm.store import Blobs, specialists
from sharedllm.store.specialists import Signed
from tests.processes import Program

A_DAY_S = 86_400


def forgotten(*contents: bytes) -> list[Path]:
    """Blobs that another process wrote and did not live to name."""
    paths = []
    for content in contents:
        path = Blobs().path(hashlib.sha256(content).hexdigest())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        paths.append(path)
    return paths


def test_what_nothing_names_is_removed() -> None:
    path, other = forgotten(b"a", b"bb")
    found = store.collect()
    assert (sorted(found.removed), found.n_bytes) == (sorted([path, other]), 3)
    assert not path.exists()


def test_a_dry_run_says_so_and_removes_nothing() -> None:
    paths = forgotten(b"a", b"bb")
    assert sorted(store.collect(dry_run=True).removed) == sorted(paths)
    assert all(path.exists() for path in paths)


def test_an_empty_store_is_clean() -> None:
    assert store.collect().removed == ()


@pytest.mark.parametrize("folder", ["models", "converted", "specialists", "adapters", "adapters/deep"])
def test_what_a_file_names_stays(folder: str) -> None:
    (path,) = forgotten(b"a")
    naming = store.home() / folder / "x.json"
    naming.parent.mkdir(parents=True)
    naming.write_text(f'{{"weights_sha256":"{path.name}"')  # even where it is damaged
    assert store.collect().removed == ()


def test_a_longer_run_of_digits_names_nothing() -> None:
    (path,) = forgotten(b"a")
    (store.home() / "models").mkdir()
    (store.home() / "models" / "x.json").write_text(path.name + "0")
    assert store.collect().removed == (path,)


def test_the_base_of_somebodys_adapter_stays(
    adapter: adapters.Adapter, base: store.Manifest, tmp_path: Path
) -> None:
    adapters.library.save("me", adapter, {})
    assert base.weights_sha256 in named_blobs()


def named_blobs() -> set[str]:
    """Run a collection in a process that holds nothing, and list what is left."""
    assert Program("from sharedllm import store; store.collect()").wait()[0] == 0
    return {path.name for path in Blobs().root.glob("??/*")}


def test_a_specialist_lives_after_a_collection(adapted: Signed) -> None:
    specialists.publish("worn", adapted)
    assert named_blobs() >= set(adapted.blobs)
    specialists.live(adapted)


def test_one_that_was_never_published_is_collected_once_its_maker_is_gone(adapted: Signed) -> None:
    paths = [Blobs().path(sha256) for sha256 in adapted.blobs]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents, strict=True):
        path.unlink()
        path.write_bytes(content)
    assert not named_blobs()


def test_what_a_file_that_can_not_be_read_may_name_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = forgotten(b"a")
    (store.home() / "models").mkdir()
    naming = store.home() / "models" / "x.json"
    naming.write_text("{}")
    opened = Path.open

    def refuse(self: Path, *arguments: Any) -> object:
        if self == naming:
            raise PermissionError(13, "Permission denied")
        return opened(self, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BadModelFile, match="may name blobs that are needed; nothing was removed"):
        store.collect()
    assert path.exists()


HOLDER = """
import sys
from sharedllm.store import Blobs, safetensors
tensors = safetensors.read_tensors(Blobs().hold(sys.argv[1]))
print("mapped", flush=True)
sys.stdin.readline()
print(float(sum(t.double().sum() for t in tensors.values())))
"""


@pytest.fixture
def mapped(base: store.Manifest) -> Iterator[tuple[Program, Path]]:
    """A process that has an unnamed model mapped; this one holds nothing of it."""
    path = Blobs().path(base.weights_sha256)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    with Program(HOLDER, path.name) as program:
        assert program.stdout.readline() == "mapped\n"
        yield program, path
        program.kill()


def test_what_a_live_process_has_mapped_stays(mapped: tuple[Program, Path]) -> None:
    _, path = mapped
    assert path in store.collect().in_use
    assert path.exists()


def test_and_goes_when_that_process_was_killed(mapped: tuple[Program, Path]) -> None:
    program, path = mapped
    program.kill()
    program.wait()
    assert path in store.collect().removed


def test_a_fetch_in_progress_is_left_alone_however_old() -> None:
    sha256 = "a" * 64
    with Blobs().arriving(sha256, 10) as arriving:
        arriving.write(b"12345")
        partial = Blobs().root / "incoming" / sha256
        os.utime(partial, (0, 0))
        assert partial in store.collect().in_use
    assert Blobs().arrived_bytes(sha256) == 5


def test_a_fetch_that_was_cut_today_can_go_on() -> None:
    with Blobs().arriving("a" * 64, 10) as arriving:
        arriving.write(b"12345")
    assert store.collect().removed == ()


def test_one_that_was_cut_long_ago_is_removed() -> None:
    with Blobs().arriving("a" * 64, 10) as arriving:
        arriving.write(b"12345")
    os.utime(Blobs().root / "incoming" / ("a" * 64), (0, 0))
    assert store.collect().n_bytes == 5


def test_remains_of_a_killed_writer_are_removed_after_a_day() -> None:
    forgotten(b"a")
    remains = Blobs().root / ".xyz.partial"
    remains.write_bytes(b"half")
    os.utime(remains, (0, 0))
    assert remains in store.collect().removed


KILLED = """
import os, signal, sys
from pathlib import Path
from sharedllm import store
unlink, left = Path.unlink, [int(sys.argv[1])]
def dying(self, *a, **k):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    unlink(self, *a, **k)
Path.unlink = dying
store.collect()
"""


@pytest.mark.parametrize("after", [0, 1, 3])
def test_killed_in_the_middle_it_leaves_a_store_that_the_next_one_cleans(after: int, adapted: Signed) -> None:
    specialists.publish("worn", adapted)
    forgotten(b"a", b"b", b"c", b"d", b"e")
    assert Program(KILLED, after).wait()[0] == -signal.SIGKILL
    assert len(store.collect().removed) == 5 - after
    specialists.live(adapted)


WRITER = """
from sharedllm.store import Blobs
print("asking", flush=True)
print(Blobs().put_bytes(b"new"), flush=True)
input()
"""


def test_a_blob_that_is_written_meanwhile_waits_and_stays() -> None:
    with Blobs().unchanging(alone=True):
        program = Program(WRITER)
        assert program.stdout.readline() == "asking\n"
        assert not list(Blobs().root.glob("??/*"))
    sha256 = program.stdout.readline().strip()
    assert store.collect().in_use == (Blobs().path(sha256),)
    program.wait()
