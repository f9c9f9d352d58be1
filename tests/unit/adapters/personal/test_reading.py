"""Own files become documents, and everything that was left out is named with its reason."""

from __future__ import annotations

import os

import pytest

from sharedllm.adapters.personal import read_texts
from sharedllm.errors import BadText


def skipped(reading) -> dict[str, str]:
    return {one.path.name: one.why for one in reading.skipped}


def test_a_folder_gives_its_texts_at_any_depth_in_order(tmp_path):
    (tmp_path / "b.md").write_text("two")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.TXT").write_text("one")
    assert [d.text for d in read_texts([tmp_path]).documents] == ["one\n", "two\n"]


def test_a_named_file_is_read_whatever_its_ending(tmp_path):
    (tmp_path / "diary").write_text("dear diary")
    assert read_texts([tmp_path / "diary"]).documents[0].text == "dear diary\n"


def test_what_is_left_out_is_named_with_the_reason(tmp_path):
    (tmp_path / "good.txt").write_text("text")
    (tmp_path / "photo.jpg").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "wide.txt").write_bytes("wide".encode("utf-16"))
    (tmp_path / "zero.txt").write_bytes(b"a\0b")
    (tmp_path / "none.txt").write_bytes(b" \n")
    (tmp_path / "same.txt").write_text("text\r\n")
    (tmp_path / "link.txt").symlink_to(tmp_path / "good.txt")
    (tmp_path / "large.txt").write_bytes(b"x" * ((4 << 20) + 1))
    os.mkfifo(tmp_path / "pipe.txt")
    why = skipped(read_texts([tmp_path]))
    assert why.keys() == {p.name for p in tmp_path.iterdir()} - {"good.txt"}
    assert why["photo.jpg"] == "is no text by its ending '.jpg'"
    assert why[".git"] == "is hidden or made by a program"
    assert why["latin.txt"] == "is not UTF-8 (byte 0xE9 at position 3); save it as UTF-8"
    assert why["wide.txt"] == "is UTF-16; save it as UTF-8"
    assert why["zero.txt"] == "is no text: it holds a zero byte"
    assert why["none.txt"] == "is empty"
    assert why["same.txt"].startswith("holds the same text as ")
    assert why["link.txt"] == "is a link"
    assert why["large.txt"].startswith("has 4,194,305 bytes, more than")
    assert why["pipe.txt"] == "is no regular file"


def test_a_file_given_twice_is_read_once(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    assert len(read_texts([tmp_path / "a.txt", tmp_path]).documents) == 1


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbftext")
    assert read_texts([tmp_path]).documents[0].text == "text\n"


@pytest.mark.parametrize(("data", "why"), [(b"\xff", "is not UTF-8"), (b"", "is empty")])
def test_a_file_named_alone_that_is_no_text_is_refused(tmp_path, data, why):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(BadText, match=why):
        read_texts([tmp_path / "a.txt"])


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadText, match="does not exist"):
        read_texts([tmp_path / "none"])


def test_a_folder_without_text_is_refused_with_the_endings(tmp_path):
    with pytest.raises(BadText, match=r"No text was found .* \.txt, \.md"):
        read_texts([tmp_path])
