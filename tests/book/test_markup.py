"""Text from a bet stays text, in Markdown and in HTML."""

from __future__ import annotations

import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from mdit_py_plugins.myst_role import myst_role_plugin

from sharedllm.bets.criteria import VERDICTS
from sharedllm.bets.markup import MEANINGS, STANDINGS, badge, fenced, markdown, pill, slug, table

PRINTABLE = st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=("Cs", "Cc", "Zl", "Zp"))
HOSTILE = (
    "<script>alert(1)</script>",
    "**bold** _soft_ # head",
    "[a](javascript:alert(1)) ![b](http://x.example/y.png)",
    "{math}`x` {{ name }} $x$",
    "```{raw} html",
    "&lt;b&gt; &amp; <!-- x -->",
    "1. item",
    "+++ :::{note}",
    "| a | b |",
)


def rendered(source: str) -> BeautifulSoup:
    """Render as the book's builder does, with raw HTML and roles allowed."""
    return BeautifulSoup(
        MarkdownIt("commonmark").enable("table").use(myst_role_plugin).render(source), "html.parser"
    )


@given(st.text(PRINTABLE, max_size=80).filter(lambda text: "`" not in text))
def test_markdown_of_any_text_renders_as_that_text(text: str) -> None:
    expected = " ".join(text.split())
    assert " ".join(rendered(markdown(text)).get_text().split()) == expected


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_makes_no_element_but_paragraphs_and_code(text: str) -> None:
    assert {element.name for element in rendered(markdown(text)).find_all()} <= {"p", "code"}


def test_code_spans_and_paragraphs_survive() -> None:
    page = rendered(markdown("Uses `logsumexp(a) − log N` here.\n\nAnd there."))
    assert [p.get_text() for p in page.find_all("p")] == ["Uses logsumexp(a) − log N here.", "And there."]
    assert page.code.get_text() == "logsumexp(a) − log N"


@given(st.text(st.sampled_from("`a\n"), max_size=30))
def test_a_fence_is_longer_than_any_run_of_backticks_inside(body: str) -> None:
    block = fenced("{raw} html", body)
    fence = block.split("{")[0]
    assert fence not in body


@pytest.mark.parametrize("text", HOSTILE)
def test_a_table_escapes_cells_caption_and_attributes(text: str) -> None:
    page = BeautifulSoup(table(text, (text,), [(text, text)]), "html.parser")
    assert page.caption.get_text() == text
    assert page.td.get_text() == text
    assert page.div["aria-label"] == text
    assert not page.find_all(["script", "img", "b"])


def test_every_verdict_has_its_own_shape_and_a_meaning() -> None:
    assert tuple(MEANINGS) == VERDICTS
    assert len({str(BeautifulSoup(badge(v), "html.parser").svg) for v in VERDICTS}) == len(VERDICTS)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_badge_says_the_verdict_as_a_word(verdict: str) -> None:
    assert BeautifulSoup(badge(verdict), "html.parser").get_text() == verdict


def test_a_retraction_names_the_bet_that_caused_it() -> None:
    assert BeautifulSoup(pill("retracted", "b062"), "html.parser").get_text() == "retracted by b062"
    assert "retracted" in STANDINGS


@given(st.text(max_size=40))
def test_a_slug_is_safe_as_class_and_file_name(text: str) -> None:
    assert set(slug(text)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
