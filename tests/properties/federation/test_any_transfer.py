"""However a blob is cut on its way, it arrives as it was or not at all."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedllm.errors import BadModelFile
from sharedllm.store import Blobs

CONTENT = st.binary(min_size=1, max_size=500)


@given(CONTENT, st.lists(st.integers(1, 100), max_size=12))
def test_any_cuts_give_the_blob_in_the_end(content: bytes, pieces: list[int]) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        blobs = Blobs(Path(folder))
        for n_bytes in [*pieces, len(content)]:
            with blobs.arriving(sha256, len(content)) as arriving:
                arriving.write(content[arriving.offset : arriving.offset + n_bytes])
        assert blobs.path(sha256).read_bytes() == content


@given(CONTENT, st.data())
def test_any_other_content_is_refused_and_nothing_kept(content: bytes, data: st.DataObject) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    size = len(content)
    other = data.draw(st.binary(min_size=size, max_size=size).filter(lambda drawn: drawn != content))
    with tempfile.TemporaryDirectory() as folder:
        blobs = Blobs(Path(folder))
        with pytest.raises(BadModelFile), blobs.arriving(sha256, size) as arriving:
            arriving.write(other)
        assert (blobs.has(sha256), blobs.arrived_bytes(sha256)) == (False, 0)
