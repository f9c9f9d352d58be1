"""A blob that comes in pieces is kept when it is whole and has its hash; else nothing, or a beginning, is."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from sharedllm.errors import BadModelFile, WriteFailed
from sharedllm.store import Blobs, blobs
from sharedllm.store.blobs import BlobBusy

DATA = bytes(range(256)) * 40
HASH = hashlib.sha256(DATA).hexdigest()


def arrive(data: bytes, sha256: str = HASH, size: int = len(DATA)) -> None:
    with Blobs().arriving(sha256, size) as arriving:
        arriving.write(data[arriving.offset :])


def partial(sha256: str = HASH) -> Path:
    return Blobs().root / "incoming" / sha256


def test_what_arrives_whole_is_a_blob() -> None:
    arrive(DATA)
    Blobs().verify(HASH)


def test_nothing_is_left_beside_it() -> None:
    arrive(DATA)
    assert not list(partial().parent.iterdir())


def test_a_cut_transfer_goes_on_where_it_ended() -> None:
    arrive(DATA[:1000])
    with Blobs().arriving(HASH, len(DATA)) as arriving:
        assert arriving.offset == 1000
        arriving.write(DATA[1000:])
    Blobs().verify(HASH)


def test_an_exception_keeps_what_came() -> None:
    def cut() -> None:
        with Blobs().arriving(HASH, len(DATA)) as arriving:
            arriving.write(DATA[:10])
            raise ConnectionError

    with pytest.raises(ConnectionError):
        cut()
    assert Blobs().arrived_bytes(HASH) == 10


def test_a_cut_transfer_is_no_blob() -> None:
    arrive(DATA[:-1])
    assert not Blobs().has(HASH)


@pytest.mark.parametrize("at", [0, 1, 5000, len(DATA) - 1])
def test_a_wrong_byte_anywhere_is_refused_and_nothing_kept(at: int) -> None:
    wrong = DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :]
    with pytest.raises(BadModelFile, match=r"hashes to .*; it was thrown away"):
        arrive(wrong)
    assert (Blobs().has(HASH), Blobs().arrived_bytes(HASH), partial().exists()) == (False, 0, False)


def test_a_wrong_beginning_from_last_time_is_refused_at_the_end() -> None:
    arrive(b"x" * 100)
    with pytest.raises(BadModelFile, match="thrown away"):
        arrive(DATA)
    arrive(DATA)
    Blobs().verify(HASH)


def test_more_bytes_than_announced_are_refused_as_they_come() -> None:
    with pytest.raises(BadModelFile, match="More than the 10,240 bytes"):
        arrive(DATA + b"x")
    assert not partial().exists()


def test_a_longer_remainder_of_another_announcement_is_dropped() -> None:
    arrive(DATA[:500])
    with Blobs().arriving(HASH, 100) as arriving:
        assert arriving.offset == 0


def test_what_is_here_already_is_not_awaited() -> None:
    Blobs().put_bytes(DATA)
    with Blobs().arriving(HASH, len(DATA)) as arriving:
        assert arriving.offset == len(DATA)


def test_a_blob_that_was_cut_short_is_replaced() -> None:
    Blobs().put_bytes(DATA)
    Blobs().path(HASH).write_bytes(DATA[:5])
    arrive(DATA)
    Blobs().verify(HASH)


def test_a_disk_without_room_is_told_before_the_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
    with pytest.raises(WriteFailed, match="10,240 bytes are to come"), Blobs().arriving(HASH, len(DATA)):
        pass


def test_a_disk_that_fills_up_keeps_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill() -> None:
        with Blobs().arriving(HASH, len(DATA)) as arriving:
            arriving.write(DATA[:100])
            monkeypatch.setattr(arriving, "_file", FullDisk(arriving._file))
            arriving.write(DATA[100:])

    with pytest.raises(WriteFailed, match="No space left"):
        fill()
    assert Blobs().arrived_bytes(HASH) == 100


class FullDisk:
    """A file that takes a little more, and then no more."""

    def __init__(self, file: object) -> None:
        self.file, self.taken = file, 0

    def write(self, data: memoryview) -> int:
        if self.taken:
            raise OSError(28, "No space left on device")
        self.taken = 7
        return self.file.write(data[:7])  # type: ignore[attr-defined, no-any-return]

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


def test_a_blob_that_another_receives_is_busy() -> None:
    with (
        Blobs().arriving(HASH, len(DATA)),
        pytest.raises(BlobBusy, match="is being received already"),
        Blobs().arriving(HASH, len(DATA), wait=False),
    ):
        pass


def test_whoever_waits_finds_it_whole() -> None:
    found: list[int] = []

    def second() -> None:
        with Blobs().arriving(HASH, len(DATA)) as arriving:
            found.append(arriving.offset)

    with Blobs().arriving(HASH, len(DATA)) as arriving:
        other = threading.Thread(target=second)
        other.start()
        arriving.write(DATA)
    other.join(20)
    assert found == [len(DATA)]


def test_what_is_no_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a SHA-256"), Blobs().arriving("../x", 1):
        pass


def test_a_blob_that_was_put_is_locked_while_this_process_lives() -> None:
    sha256 = Blobs().put_bytes(b"mine")
    with Blobs().path(sha256).open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_holding_twice_costs_one_descriptor() -> None:
    sha256 = Blobs().put_bytes(b"mine")
    before = len(blobs._held)
    Blobs().hold(sha256)
    assert len(blobs._held) == before


def test_a_replaced_blob_is_locked_anew() -> None:
    sha256 = Blobs().put_bytes(b"mine")
    Blobs().put_bytes(b"mine")
    with Blobs().path(sha256).open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_blob_that_is_not_here_can_not_be_held() -> None:
    assert not Blobs().hold("0" * 64).exists()
