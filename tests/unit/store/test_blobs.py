"""Blobs are found by their content's hash; damage has a name and an address."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharedllm.errors import BadModelFile
from sharedllm.store import Blobs, sha256_of


def test_a_blob_is_named_by_its_content(home: Path) -> None:
    blobs = Blobs()
    sha256 = blobs.put_bytes(b"content")
    assert sha256 == sha256_of(b"content")
    assert blobs.path(sha256).read_bytes() == b"content"
    assert blobs.path(sha256).is_relative_to(home)


def test_a_file_and_its_bytes_are_the_same_blob(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert Blobs().put_file(tmp_path / "file") == Blobs().put_bytes(b"content")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail(sink: object) -> None:
        raise RuntimeError

    blobs = Blobs(tmp_path / "blobs")
    with pytest.raises(RuntimeError):
        blobs.put(fail)
    assert list(blobs.root.iterdir()) == []


def test_a_changed_blob_is_named() -> None:
    blobs = Blobs()
    sha256 = blobs.put_bytes(b"content")
    blobs.path(sha256).write_bytes(b"C0ntent")
    with pytest.raises(BadModelFile, match=f"Blob {sha256} is damaged"):
        blobs.verify(sha256)


def test_storing_the_same_content_again_heals_a_changed_blob() -> None:
    blobs = Blobs()
    blobs.path(blobs.put_bytes(b"content")).write_bytes(b"C0ntent")
    blobs.verify(blobs.put_bytes(b"content"))


def test_a_missing_blob_is_named() -> None:
    with pytest.raises(BadModelFile, match="is missing"):
        Blobs().verify("0" * 64)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64])
def test_what_is_no_hash_has_no_path(name: str) -> None:
    with pytest.raises(ValueError, match="not a SHA-256"):
        Blobs().path(name)
