"""The coded form: smaller, exactly the same when it is decoded, and taken in like the file itself."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import pytest
import zstandard

from sharedllm import store
from sharedllm.errors import BadModelFile, MissingSource, WriteFailed
from sharedllm.store.ternary import coding


@pytest.fixture
def coded(path: Path) -> Path:
    coded = path.with_name(path.name + coding.SUFFIX)
    with coded.open("wb") as sink:
        coding.encode(path, sink)
    return coded


def decoded(path: Path) -> bytes:
    sink = io.BytesIO()
    coding.decode(path, sink)
    return sink.getvalue()


def test_what_is_decoded_is_the_file(path: Path, coded: Path) -> None:
    assert decoded(coded) == path.read_bytes()
    assert coding.announced_bytes(coded) == path.stat().st_size


def test_the_coded_form_is_smaller(path: Path, coded: Path) -> None:
    assert coded.stat().st_size < path.stat().st_size


def test_any_other_decoder_reads_it(path: Path, coded: Path) -> None:
    assert zstandard.ZstdDecompressor().decompress(coded.read_bytes()) == path.read_bytes()


def test_the_store_takes_it_in_as_the_file(path: Path, coded: Path) -> None:
    manifest = store.resolve(coded)
    assert (manifest.name, manifest.weights_sha256) == ("small", store.sha256_of(path))


def test_a_bit_flipped_anywhere_changes_nothing_unnoticed(path: Path, coded: Path) -> None:
    whole, expected = coded.read_bytes(), path.read_bytes()
    for at in {*range(24), *range(24, len(whole), 997), len(whole) - 1}:
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        coded.write_bytes(data)
        with contextlib.suppress(BadModelFile):  # the frame's header has a bit that means nothing
            assert decoded(coded) == expected


def test_truncation_anywhere_is_noticed(coded: Path) -> None:
    whole = coded.read_bytes()
    for length in {*range(4, 24), *range(24, len(whole), 997), len(whole) - 1}:
        coded.write_bytes(whole[:length])
        with pytest.raises(BadModelFile, match="is not a whole Zstandard frame"):
            decoded(coded)


def test_what_follows_the_frame_is_noticed(coded: Path) -> None:
    coded.write_bytes(coded.read_bytes() + b"more")
    with pytest.raises(BadModelFile, match="is not a whole Zstandard frame"):
        decoded(coded)


def test_a_frame_that_does_not_say_its_size_is_refused(path: Path, coded: Path) -> None:
    one = zstandard.ZstdCompressor().compressobj()
    coded.write_bytes(one.compress(path.read_bytes()) + one.flush())
    with pytest.raises(BadModelFile, match="does not say how many bytes"):
        decoded(coded)


def test_a_window_too_large_for_memory_is_refused(coded: Path) -> None:
    wide = zstandard.ZstdCompressionParameters.from_level(1, window_log=24)
    with (
        coded.open("wb") as sink,
        zstandard.ZstdCompressor(compression_params=wide).stream_writer(sink, size=20 << 20) as writer,
    ):
        for _ in range(20):
            writer.write(bytes(1 << 20))
    with pytest.raises(BadModelFile, match="is not a whole Zstandard frame"):
        decoded(coded)


def test_a_frame_for_which_there_is_no_room_is_not_begun(
    coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coding, "announced_bytes", lambda path: 1 << 60)
    with pytest.raises(WriteFailed, match="are to come, but the disk"):
        store.resolve(coded)


def test_a_frame_around_something_else_is_not_taken_in(coded: Path) -> None:
    coded.write_bytes(zstandard.ZstdCompressor().compress(b"no model at all"))
    with pytest.raises(BadModelFile):
        store.resolve(coded)
    assert not [blob for blob in store.Blobs().root.glob("??/*") if blob.is_file()]


def test_without_the_library_a_sentence_says_what_to_do(coded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingSource, match="pip install zstandard"):
        decoded(coded)
