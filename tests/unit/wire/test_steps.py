"""A step's meta is read as it was written; counts that do not add up are refused."""

from __future__ import annotations

import struct

import pytest

from sharedllm.wire import BadFrame, Codec, Hop, Limits, Op, Segment, StepMeta, Want

SEGMENTS = (
    Segment(Op.FORK, 2, 64, source=1),
    Segment(Op.ROLLBACK, 1, 3),
    Segment(Op.CHUNK, 1, 10, 64, Want.NONE),
    Segment(Op.ROWS, 2, 64, 5, Want.ALL),
    Segment(Op.FREE, (1 << 32) - 1),
)
META = StepMeta(SEGMENTS, Codec.INT8, 576, 69, 1, (Hop(0, 15, 1200, 80, 2), Hop(15, 30, 1300, 0)))


def test_a_step_is_read_as_it_was_written() -> None:
    assert StepMeta.from_bytes(META.to_bytes()) == META


def test_a_step_without_anything_is_a_step() -> None:
    empty = StepMeta((), Codec.FP32, 8, 0)
    assert StepMeta.from_bytes(empty.to_bytes()) == empty


@pytest.mark.parametrize(
    ("want", "rows", "wanted"),
    [(Want.NONE, 5, 0), (Want.LAST, 5, 1), (Want.TRACE, 5, 1), (Want.ALL, 5, 5), (Want.LAST, 0, 0)],
)
def test_a_segment_says_how_many_rows_come_back(want: Want, rows: int, wanted: int) -> None:
    assert Segment(Op.ROWS, 0, 0, rows, want).wanted == wanted


@pytest.mark.parametrize("change", [-1, 1, 16, -16])
def test_a_length_that_the_counts_do_not_explain_is_refused(change: int) -> None:
    data = META.to_bytes()
    data = data + bytes(change) if change > 0 else data[:change]
    with pytest.raises(BadFrame, match="counts say"):
        StepMeta.from_bytes(data)


def test_a_meta_too_short_for_its_counts_is_refused() -> None:
    with pytest.raises(BadFrame, match="at least 16"):
        StepMeta.from_bytes(META.to_bytes()[:15])


@pytest.mark.parametrize("at", [4, 16, 17], ids=["codec", "op", "want"])
def test_an_unknown_code_is_refused(at: int) -> None:
    data = bytearray(META.to_bytes())
    data[at] = 200
    with pytest.raises(BadFrame, match="unknown code: 200"):
        StepMeta.from_bytes(bytes(data))


@pytest.mark.parametrize(
    "meta",
    [
        StepMeta(SEGMENTS * 2, Codec.FP32, 8, 1),
        StepMeta((), Codec.FP32, 8, 0, hops=META.hops * 2),
        StepMeta((), Codec.FP32, 8, 6),
        StepMeta((), Codec.FP32, 8, 0, traced=6),
    ],
    ids=["segments", "hops", "rows", "traced"],
)
def test_more_than_the_limits_allow_is_refused(meta: StepMeta) -> None:
    with pytest.raises(BadFrame, match="at most 5, 3 and twice 5"):
        StepMeta.from_bytes(meta.to_bytes(), Limits(rows=5, segments=5, hops=3))


def test_announced_counts_of_a_short_meta_take_no_memory() -> None:
    data = struct.pack("<HHBxHII", 1024, 256, 0, 8, 0, 0)
    with pytest.raises(BadFrame, match="counts say 20496"):
        StepMeta.from_bytes(data)


@pytest.mark.parametrize(
    "segment", [Segment(Op.ROWS, -1), Segment(Op.ROWS, 0, 1 << 32), Segment(Op.ROWS, 0, 0, 1 << 16)]
)
def test_a_number_that_does_not_fit_its_field_is_not_written(segment: Segment) -> None:
    with pytest.raises(ValueError, match="can't be written"):
        StepMeta((segment,), Codec.FP32, 8, 0).to_bytes()
