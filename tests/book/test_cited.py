"""Verdicts in guides: as the ledger holds them, with a link that leads there."""

from __future__ import annotations

from sharedllm.bets.index import cite
from sharedllm.bets.registration import Catalogue
from sharedllm.cli.book import read_entries


def test_a_cited_bet_stands_with_its_verdict_and_a_link(made_up: Catalogue) -> None:
    entries = {entry.bet.id: entry for entry in read_entries(made_up)}
    page = cite("Before.\n\n<!-- generated: verdicts b004 b037 -->\n\nAfter.", entries, "../")
    assert page.startswith("Before.")
    assert page.endswith("After.")
    assert '<a href="../bets/b004-mixture-combiner.html">b004</a>' in page
    assert "LENIENT PASS" in page
    assert page.count("<tr>") == 3


def test_a_bet_that_is_not_in_the_catalogue_is_said_to_be_missing(made_up: Catalogue) -> None:
    page = cite("<!-- generated: verdicts b999 -->", {}, "")
    assert "This catalogue does not hold it." in page
    assert "href" not in page


def test_a_page_that_cites_nothing_stays_as_it_is() -> None:
    assert cite("<!-- generated: index -->", {}, "") == "<!-- generated: index -->"
