"""Every colour pair of our own style sheet, in both modes, computed by the WCAG 2 formula."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSS = (Path(__file__).resolve().parents[2] / "book" / "_static" / "book.css").read_text(encoding="utf-8")
TEXT = 4.5  # WCAG 2.2, 1.4.3 AA
GRAPHIC = 3.0  # WCAG 2.2, 1.4.11
WORDS = (
    "ink",
    "ink-soft",
    "link",
    "link-hover",
    "strict",
    "lenient",
    "fail",
    "catastrophic",
    "void",
    "unrun",
)
LINES = ("line-strong", "focus", *(f"series-{i}" for i in range(5)))


def colours(selector: str) -> dict[str, str]:
    """Read the custom properties of the first block after ``selector``."""
    block = CSS[CSS.index(selector) :]
    return dict(re.findall(r"--([a-z0-9-]+):\s*(#[0-9a-f]{6});", block[: block.index("}")]))


MODES = {
    "light": colours('html[data-theme="light"] {'),
    "dark": colours('html[data-theme="dark"] {'),
    "dark without script": colours('html:not([data-theme="light"]):not([data-theme="dark"]) {'),
}


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("paper", ["paper", "paper-2", "paper-3"])
@pytest.mark.parametrize("word", WORDS)
def test_text_can_be_read_on_every_paper(mode: str, paper: str, word: str) -> None:
    assert contrast(MODES[mode][word], MODES[mode][paper]) >= TEXT


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("line", LINES)
def test_marks_and_focus_stand_out_from_the_paper(mode: str, line: str) -> None:
    assert contrast(MODES[mode][line], MODES[mode]["paper"]) >= GRAPHIC


def test_the_mode_without_script_has_the_same_colours_as_dark() -> None:
    assert MODES["dark without script"] == MODES["dark"]


def test_the_formula_gives_21_for_black_on_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_no_style_sheet_asks_another_address() -> None:
    assert not re.search(r"@import|url\(", CSS)
