"""Bytes and durations are read as people write them, and what can't be meant is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedllm.nodes.operations import BadSetting, format_bytes, format_duration, parse_bytes, parse_duration


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("512", 512),
        ("0", 0),
        ("300 MB", 300_000_000),
        ("10GB", 10_000_000_000),
        ("2g", 2_000_000_000),
        ("1.5GiB", 1_610_612_736),
        ("64KiB", 65_536),
        ("7b", 7),
    ],
)
def test_bytes_are_read_as_people_write_them(text: str, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1h 30min", 5400),
        ("2d", 172_800),
        ("500ms", 0.5),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "10 XB", "1.GB", "9999999PB", "nan", "10GB!"])
def test_what_is_no_number_of_bytes_is_refused_with_examples(text: str) -> None:
    with pytest.raises(BadSetting, match="is no number of bytes; write one such as 512MB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["", "h", "-1s", "1 year", "1h!", "inf", "20000d", "1h -30m"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(BadSetting, match="is no duration; write one such as 90s"):
        parse_duration(text)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_bytes, parse_duration):
        with contextlib.suppress(BadSetting):
            assert parse(text) >= 0


@given(st.integers(0, 10**18))
def test_formatted_bytes_read_back_within_half_a_unit_of_the_last_digit(n_bytes: int) -> None:
    assert abs(parse_bytes(format_bytes(n_bytes)) - n_bytes) <= 0.005 * n_bytes + 1


@given(st.floats(1e-3, 1e8))
def test_formatted_durations_read_back_nearly(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.51)
