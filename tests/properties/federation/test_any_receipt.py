"""For every value in a receipt: changed, the receipt is refused."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.attribution.receipts import acknowledged, verify
from sharedllm.errors import BadReceipt
from sharedllm.store import canonical_json
from tests.unit.attribution.receipts.making import CLIENT, receipt


@functools.cache
def acknowledged_receipt() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return acknowledged(receipt(Path(folder) / "log"), CLIENT)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a JSON document stand that hold no others."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*at, key))
    else:
        yield at


PLACES = list(places(json.loads(acknowledged_receipt())))
OTHER = st.none() | st.booleans() | st.integers() | st.text(max_size=70) | st.lists(st.integers(), max_size=2)


def held(whole: Any, at: tuple[Any, ...]) -> Any:
    for key in at:
        whole = whole[key]
    return whole


@st.composite
def near(draw: st.DrawFn, value: Any) -> Any:
    """Another value like this one: a number a little off, a text with one other character."""
    if isinstance(value, int):
        return value + draw(st.integers(-3, 3))
    if isinstance(value, str) and value:
        i = draw(st.integers(0, len(value) - 1))
        return value[:i] + draw(st.sampled_from("09afAF+/=\n x")) + value[i + 1 :]
    return draw(OTHER)


each_place = pytest.mark.parametrize("at", PLACES, ids=lambda at: ".".join(map(str, at)))


@each_place
@settings(max_examples=30)
@given(data=st.data())
def test_no_value_can_be_changed(at, data):
    changed(at, data)


@pytest.mark.slow
@each_place
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_value_can_be_changed_however_often_one_tries(at, data):
    changed(at, data)


def changed(at: tuple[Any, ...], data: st.DataObject) -> None:
    """Change one value, and see that the receipt is refused."""
    whole = json.loads(acknowledged_receipt())
    parent, before = held(whole, at[:-1]), held(whole, at)
    after = data.draw(near(before) | OTHER)
    withheld = at == ("salt",) and after is None
    if (after, type(after)) != (before, type(before)) and not withheld:
        parent[at[-1]] = after
        with pytest.raises(BadReceipt):
            verify(json.dumps(whole).encode())


@given(st.data())
def test_no_byte_can_be_changed(data):
    good = acknowledged_receipt()
    at = data.draw(st.integers(0, len(good) - 1))
    forged = bytearray(good)
    forged[at] ^= data.draw(st.integers(1, 255))
    try:
        same = canonical_json(json.loads(bytes(forged))) == good
    except ValueError:
        same = False
    if not same:
        with pytest.raises(BadReceipt):
            verify(bytes(forged))


@given(st.sampled_from(PLACES))
def test_nothing_can_be_left_out(at):
    whole = json.loads(acknowledged_receipt())
    del held(whole, at[:-1])[at[-1]]
    with pytest.raises(BadReceipt):
        verify(json.dumps(whole).encode())
