"""Figures: the same bytes for the same numbers, words beside every picture, nothing drawn outside."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import Any

import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from sharedllm.bets.figures import Figure, figure, html, svg
from sharedllm.bets.result import SERIES_KINDS, Series
from sharedllm.errors import BadBet

NAMESPACE = "{http://www.w3.org/2000/svg}"
NUMBERS = st.floats(-1e9, 1e9, allow_nan=False)


def series(**changes: Any) -> Series:
    given_ = {
        "name": "n",
        "kind": "points",
        "title": "Title",
        "takeaway": "Take this.",
        "alt": "Two points.",
        "x": [1.0, 2.0],
        "y": [3.0, 4.0],
        "x_label": "x",
        "y_label": "y (nats)",
    }
    return Series(**(given_ | changes))


def drawn(one: Series) -> ET.Element:
    return ET.fromstring(str(svg(figure(one))))


@pytest.fixture(scope="module")
def examples(making: SimpleNamespace) -> list[Series]:
    return [Series(**one) for one in making.series]


def test_the_same_series_gives_the_same_bytes(examples: list[Series]) -> None:
    assert [html(figure(one), "a") for one in examples] == [html(figure(one), "a") for one in examples]


@pytest.mark.parametrize("missing", ["alt", "takeaway", "title"])
def test_a_series_without_words_is_refused(missing: str) -> None:
    with pytest.raises(BadBet, match=missing):
        series(**{missing: " "})


def test_a_figure_is_an_image_named_by_its_title_and_described_by_its_alt(examples: list[Series]) -> None:
    for one in examples:
        root = drawn(one)
        words = {e.get("id"): e.text for e in root if e.tag in (f"{NAMESPACE}title", f"{NAMESPACE}desc")}
        assert root.get("role") == "img"
        assert [words[i] for i in str(root.get("aria-labelledby")).split()] == [one.title, one.alt]


def test_a_figure_names_no_colour_so_that_the_theme_decides(examples: list[Series]) -> None:
    assert not any(re.search(r"#[0-9a-f]{3}|rgb|fill=|stroke=", str(svg(figure(one)))) for one in examples)


def test_curves_differ_in_shape_as_well_as_in_colour() -> None:
    labels = {name: [1.0, 2.0] for name in "abcde"}
    paths = [e for e in drawn(series(y=labels)).iter(f"{NAMESPACE}path") if e.get("transform")]
    assert len({e.get("d") for e in paths}) == 5


def test_the_data_table_holds_every_drawn_number() -> None:
    page = BeautifulSoup(
        html(figure(series(x=["left", "right"], y=[1.5, -2.0], kind="bar")), "f"), "html.parser"
    )
    cells = [[c.get_text() for c in row.find_all(["th", "td"])] for row in page.tbody.find_all("tr")]
    assert cells == [["n", "left", "1.5"], ["n", "right", "−2"]]


def test_a_null_leaves_its_point_out() -> None:
    assert figure(series(x=[1.0, 2.0, 3.0], y=[1.0, None, 3.0])).marks[0].x == (1.0, 3.0)


def test_a_bar_starts_at_zero() -> None:
    rect = next(drawn(series(x=["a", "b"], y=[5.0, 10.0], kind="bar")).iter(f"{NAMESPACE}rect"))
    zero = next(
        t
        for t in drawn(series(x=["a", "b"], y=[5.0, 10.0], kind="bar")).iter(f"{NAMESPACE}text")
        if t.text == "0"
    )
    assert float(str(rect.get("x"))) == pytest.approx(float(str(zero.get("x"))))


def test_a_title_with_markup_is_escaped() -> None:
    page = BeautifulSoup(
        html(figure(series(title='<script>"&', alt="</desc><b>")), 'x" onload="y'), "html.parser"
    )
    assert not page.find_all(["script", "b"])
    assert page.figcaption.strong.get_text() == '<script>"&'


def test_all_values_null_draw_axes_and_no_mark() -> None:
    assert figure(series(y=[None, None])).marks == ()
    assert "<svg" in svg(figure(series(y=[None, None])))


@given(
    st.sampled_from(SERIES_KINDS),
    st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20),
    st.booleans(),
)
def test_whatever_is_recorded_is_drawn_inside_the_picture(
    kind: str, rows: list[tuple[float, float]], named: bool
) -> None:
    xs: list[float | str] = [f"row {i}" for i in range(len(rows))] if named else [x for x, _ in rows]
    ys: list[float | None] = [y for _, y in rows]
    root = drawn(series(kind=kind, x=xs, y=ys, low=ys, high=ys))
    _, _, width, height = map(float, str(root.get("viewBox")).split())
    assert width <= 720
    for mark in root.iter():
        for key, limit in (("x", width), ("y", height)):
            if mark.get(key):
                assert -1 <= float(str(mark.get(key))) <= limit + 1


def test_a_figure_without_marks_keeps_its_words() -> None:
    empty = Figure("T", "Take.", "Alt.", "x", "y", ())
    assert "Take." in html(empty, "e")
