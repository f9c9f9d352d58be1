"""A log after a crash, at every byte: nothing signed is lost, no root is wrong, and appends go on."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from sharedllm.attribution.log import Checkpoint, Log
from sharedllm.errors import BadLog, WriteFailed
from tests.unit.attribution.log.naive import NAME, PRIVATE, naive_root

BATCHES = [[b"one"], [b"two", b""], [b"four"]]
ALL = [entry for batch in BATCHES for entry in batch]


def go_on(folder: Path, least: int, entries: list[bytes]) -> None:
    """Reopen a log, check that it is a prefix of ``entries`` not shorter than ``least``, and append."""
    log = Log(folder, NAME, PRIVATE)
    try:
        kept = entries[: log.size]
        assert least <= log.size <= len(entries)
        assert [log.entry(i) for i in range(log.size)] == kept
        assert Checkpoint.verified(log.note, log.key) == Checkpoint(NAME, len(kept), naive_root(kept))
        log.append([b"after"])
        assert log.prove(log.size - 1).verify(b"after", log.key).root == naive_root([*kept, b"after"])
    finally:
        log.close()


def written(folder: Path, batches: list[list[bytes]], *, publish: bool = False) -> list[int]:
    """Write a log, leave it as a killed process would, and give the journal's length after each batch."""
    log = Log(folder, NAME, PRIVATE)
    lengths = []
    try:
        for batch in batches:
            log.append(batch)
            lengths.append((folder / "journal").stat().st_size)
            if publish:
                log.publish()
    finally:
        log._exit.close()  # not ``close``, which publishes
    return lengths


def test_a_journal_cut_at_any_byte_of_its_last_batches(tmp_path):
    lengths = written(tmp_path / "log", BATCHES)
    whole = (tmp_path / "log" / "journal").read_bytes()
    for cut in range(len(whole) + 1):
        folder = tmp_path / "cut"
        shutil.copytree(tmp_path / "log", folder)
        (folder / "journal").write_bytes(whole[:cut])
        synced = sum(length <= cut for length in lengths)
        go_on(folder, sum(map(len, BATCHES[:synced])), ALL)
        shutil.rmtree(folder)


@pytest.mark.parametrize("fill", [b"\x00", b"S"])
def test_a_last_batch_that_is_garbled_from_any_byte_on(tmp_path, fill):
    lengths = written(tmp_path / "log", BATCHES)
    whole = (tmp_path / "log" / "journal").read_bytes()
    for cut in range(lengths[-2], len(whole)):
        folder = tmp_path / "cut"
        shutil.copytree(tmp_path / "log", folder)
        (folder / "journal").write_bytes(whole[:cut] + fill * (len(whole) - cut))
        go_on(folder, len(ALL) - 1, ALL)
        shutil.rmtree(folder)


def test_any_published_file_cut_at_any_byte(tmp_path):
    written(tmp_path / "log", BATCHES, publish=True)
    files = [p for p in (tmp_path / "log").rglob("*") if p.is_file() and p.name not in ("journal", "lock")]
    assert {p.name for p in files} == {"checkpoint", "4"}
    for path in files:
        for cut in range(path.stat().st_size):
            folder = tmp_path / "cut"
            shutil.copytree(tmp_path / "log", folder)
            short = folder / path.relative_to(tmp_path / "log")
            short.write_bytes(short.read_bytes()[:cut])
            go_on(folder, len(ALL), ALL)
            shutil.rmtree(folder)


def _crash_points(folder: Path, monkeypatch: pytest.MonkeyPatch, batches: list[list[bytes]], at: int) -> bool:
    """Write batches and die before the ``at``-th write, rename or removal; False if there is none such."""
    calls = 0

    class Killed(BaseException):
        pass

    def counted(function):
        def call(*args, **named):
            nonlocal calls
            calls += 1
            if calls > at:
                raise Killed
            return function(*args, **named)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", counted(os.pwrite))
        patch.setattr(Path, "replace", counted(Path.replace))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        try:
            written(folder, batches, publish=True)
        except Killed:
            return True
    return False


def test_a_crash_between_any_two_steps_of_filling_a_tile(tmp_path, monkeypatch):
    batches = [[f"{i}".encode() for i in range(250)], [f"{i}".encode() for i in range(250, 260)], [b"last"]]
    entries = [entry for batch in batches for entry in batch]
    at, crashed = 0, True
    while crashed:
        folder = tmp_path / f"crash{at}"
        crashed = _crash_points(folder, monkeypatch, batches, at)
        go_on(folder, 0, entries)
        at += 1
    assert at > 20


def test_damage_before_a_later_batch_is_refused_rather_than_cut_off(tmp_path):
    lengths = written(tmp_path / "log", BATCHES)
    journal = tmp_path / "log" / "journal"
    data = bytearray(journal.read_bytes())
    data[lengths[0] + 25] ^= 1
    journal.write_bytes(data)
    with pytest.raises(BadLog, match="damaged at byte"):
        Log(tmp_path / "log", NAME, PRIVATE)
    assert journal.read_bytes() == bytes(data)


def test_a_journal_put_back_behind_its_published_checkpoint_is_refused(tmp_path):
    lengths = written(tmp_path / "log", BATCHES, publish=True)
    journal = tmp_path / "log" / "journal"
    journal.write_bytes(journal.read_bytes()[: lengths[1]])
    with pytest.raises(BadLog, match="promised a log of 4 entries and holds 3"):
        Log(tmp_path / "log", NAME, PRIVATE)


def test_tiles_without_a_journal_are_refused(tmp_path):
    written(tmp_path / "log", BATCHES, publish=True)
    (tmp_path / "log" / "journal").unlink()
    with pytest.raises(BadLog, match="no journal"):
        Log(tmp_path / "log", NAME, PRIVATE)


def test_a_lost_tile_is_refused(tmp_path):
    written(tmp_path / "log", [[b"x"] * 300])
    (tmp_path / "log" / "tile/0/000").unlink()
    with pytest.raises(BadLog, match="can't be read"):
        Log(tmp_path / "log", NAME, PRIVATE)


def test_a_changed_tile_is_refused(tmp_path):
    written(tmp_path / "log", [[b"x"] * 300])
    tile = tmp_path / "log" / "tile/0/000"
    tile.write_bytes(bytes(32) + tile.read_bytes()[32:])
    with pytest.raises(BadLog, match="not those that were signed"):
        Log(tmp_path / "log", NAME, PRIVATE)


def test_what_a_killed_process_left_half_written_is_swept(tmp_path):
    written(tmp_path / "log", BATCHES)
    left = tmp_path / "log" / ".abc.partial"
    left.write_bytes(b"half")
    Log(tmp_path / "log", NAME, PRIVATE).close()
    assert not left.exists()


def _full(*_: object, **__: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_full_disk_refuses_a_batch_and_the_next_one_is_taken_when_there_is_room(
    tmp_path, monkeypatch, call
):
    log = Log(tmp_path / "log", NAME, PRIVATE)
    log.append([b"before"])
    before = (log.size, log.note)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, _full)
        with pytest.raises(WriteFailed, match="No space"):
            log.append([b"refused"])
        assert (log.size, log.note) == before
    log.append([b"after"])
    log.close()
    go_on(tmp_path / "log", 2, [b"before", b"after"])


def test_a_disk_that_takes_the_journal_but_no_tile_loses_nothing(tmp_path, monkeypatch):
    entries = [f"{i}".encode() for i in range(300)]
    log = Log(tmp_path / "log", NAME, PRIVATE)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", _full)
        log.append(entries)
    assert not (log.folder / "tile/0/000").exists()
    assert log.prove(3).verify(b"3", log.key).root == naive_root(entries)
    log.append([b"next"])
    assert (log.folder / "tile/0/000").exists()
    log.close()
    go_on(tmp_path / "log", 301, [*entries, b"next"])
