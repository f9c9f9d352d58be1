"""The index: everything is listed, nothing of the seed passes for ours, luck is counted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup

from sharedllm.bets.index import (
    CHAPTERS,
    Entry,
    SeedClaim,
    catalogue_document,
    false_passes,
    filters_css,
    index,
    seed_claims,
    tally,
)
from sharedllm.bets.ledger import Ledger
from sharedllm.bets.registration import Catalogue, load_bet
from sharedllm.cli.book import read_entries
from sharedllm.errors import BadBet

SEED = (Path(__file__).resolve().parents[2] / "catalogue" / "seed.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def entries(made_up: Catalogue) -> list[Entry]:
    return read_entries(made_up)


@pytest.fixture(scope="module")
def claims() -> tuple[SeedClaim, ...]:
    return seed_claims(SEED)


@pytest.fixture(scope="module")
def page(entries: list[Entry], claims: tuple[SeedClaim, ...]) -> BeautifulSoup:
    return BeautifulSoup(index(entries, claims), "html.parser")


def test_the_seed_file_lists_each_bet_once_in_a_known_chapter(claims: tuple[SeedClaim, ...]) -> None:
    assert len({claim.id for claim in claims}) == len(claims) == 37
    assert {claim.chapter for claim in claims} <= set(CHAPTERS)


@pytest.mark.parametrize(
    "text", ["claim = 1", "[[claim]]\nid = 'b001'", "][", SEED.replace("foundations", "cellar")]
)
def test_a_malformed_seed_file_is_refused(text: str) -> None:
    with pytest.raises(BadBet, match=r"seed\.toml"):
        seed_claims(text)


def test_every_regime_of_every_bet_has_a_row(page: BeautifulSoup, entries: list[Entry]) -> None:
    rows = page.select("table.index:not(.seed) tbody tr")
    assert len(rows) == sum(len(entry.bet.registration.regimes) for entry in entries) == 10


def test_a_seed_claim_with_a_bet_of_ours_is_not_listed_twice(
    page: BeautifulSoup, entries: list[Entry]
) -> None:
    listed = {row.th.get_text() for row in page.select("table.seed tbody tr")}
    assert listed.isdisjoint(entry.bet.id for entry in entries)
    assert len(listed) == 37 - 5


def test_every_seed_claim_says_unrun_whatever_the_seed_said(page: BeautifulSoup) -> None:
    assert {row.select_one(".verdict").get_text() for row in page.select("table.seed tbody tr")} == {"UNRUN"}


def test_the_table_of_the_seed_says_whose_figures_they_are(page: BeautifulSoup) -> None:
    assert "the seed’s own" in page.select_one("table.seed caption").get_text()


def test_a_retracted_verdict_stays_in_sight(page: BeautifulSoup) -> None:
    row = page.select_one('tr[data-standing="retracted"]')
    assert row is not None
    assert "STRICT PASS" in row.get_text()
    assert "retracted by b062" in row.get_text()


def test_no_row_is_hidden_in_the_markup(page: BeautifulSoup) -> None:
    assert not page.select("tr[hidden], tr[style], table[hidden]")


def test_every_option_of_every_filter_has_a_rule_and_matches_its_count(
    page: BeautifulSoup, entries: list[Entry], claims: tuple[SeedClaim, ...]
) -> None:
    css = filters_css(entries, claims)
    for select in page.select(".filters select"):
        for option in select.select('option:not([value=""])'):
            name, value = select["name"], option["value"]
            assert f'#filter-{name} option[value="{value}"]:checked' in css
            shown = int(re.search(r"\((\d+)\)$", option.get_text()).group(1))  # type: ignore[union-attr]
            assert len(page.select(f'tbody tr[data-{name}~="{value}"]')) == shown


def test_false_passes_add_up_the_registered_rates(entries: list[Entry]) -> None:
    bound, by_chance, exact = false_passes(entries)
    # seven decided verdicts besides VOID, each with a strict e-value of at least 20
    assert (bound, by_chance, exact) == (pytest.approx(7 / 20), 7, 0)


def test_a_bet_about_arithmetic_adds_no_luck(tmp_path: Path, making: SimpleNamespace) -> None:
    folder = making.bet(tmp_path / "catalogue", "b004", "x", "foundations", "t", "c")
    toml = (folder / "bet.toml").read_text(encoding="utf-8").replace("e_value >= 20", "residual <= 1e-12")
    (folder / "bet.toml").write_text(toml, encoding="utf-8")
    bet, ledger = load_bet(folder), Ledger(tmp_path / "LEDGER.jsonl")
    more = {"regime": "toy", "verdict": "STRICT PASS", "result_sha256": "a" * 64}
    ledger.append("registered", "b004", bet.registration.sha256, making.commit)
    ledger.append("decided", "b004", bet.registration.sha256, making.commit, **more)
    assert false_passes([Entry(bet, ledger.read())]) == (0, 0, 1)


def test_the_front_page_says_how_many_passes_luck_would_give(
    entries: list[Entry], claims: tuple[SeedClaim, ...]
) -> None:
    assert "at most 0.35" in BeautifulSoup(tally(entries, claims), "html.parser").get_text()


def test_an_empty_catalogue_has_an_index(claims: tuple[SeedClaim, ...]) -> None:
    page = BeautifulSoup(index([], claims) + tally([], claims), "html.parser")
    assert len(page.select("table.seed tbody tr")) == 37
    assert "Nothing is decided yet" in page.get_text()


def test_the_catalogue_document_is_json_with_every_verdict(
    entries: list[Entry], claims: tuple[SeedClaim, ...]
) -> None:
    document = json.loads(json.dumps(catalogue_document(entries, claims), allow_nan=False))
    verdicts = {bet["id"]: bet["regimes"]["toy"]["verdict"] for bet in document["bets"]}
    assert verdicts == {
        "b004": "STRICT PASS",
        "b018": "STRICT PASS",
        "b037": "FAIL",
        "b038": "CATASTROPHIC",
        "b061": "VOID",
    }
