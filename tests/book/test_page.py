"""A bet's page: criteria before evidence, both renderings, differences named, nothing injected."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from sharedllm.bets.index import Entry
from sharedllm.bets.page import bet_page, status_page
from sharedllm.bets.registration import Catalogue
from sharedllm.cli.book import read_entries


@pytest.fixture(scope="module")
def entries(made_up: Catalogue) -> dict[str, Entry]:
    return {entry.bet.id: entry for entry in read_entries(made_up)}


def with_result(entry: Entry, **changes: object) -> Entry:
    return replace(entry, results={"toy": replace(entry.results["toy"], **changes)})  # type: ignore[arg-type]


def headings(page: str) -> list[str]:
    return [line[3:] for line in page.splitlines() if line.startswith("## ")]


def test_criteria_and_controls_come_before_what_came_out(entries: dict[str, Entry]) -> None:
    assert headings(bet_page(entries["b004"], {})) == [
        "Run it yourself",
        "The claim",
        "Criteria",
        "Controls",
        "What came out",
        "Figures",
        "Provenance",
        "Registered and run",
        "Ledger",
        "Downloads",
        "What this does not cover",
        "Related",
    ]


def test_no_result_is_shown_above_the_criteria(entries: dict[str, Entry]) -> None:
    before = bet_page(entries["b004"], {}).split("## What came out")[0]
    assert "1.084" not in before


def test_each_criterion_has_both_renderings(entries: dict[str, Entry]) -> None:
    page = bet_page(entries["b004"], {})
    assert "<td>≤ 1.1×</td><td>1.084×</td>" in page


def test_a_catastrophic_bar_is_one_not_to_reach(entries: dict[str, Entry]) -> None:
    assert '<td>harm if &gt; 2×</td><td>520×</td><td><span class="held">✗ reached' in bet_page(
        entries["b038"], {}
    )


def test_the_reproduce_command_comes_first(entries: dict[str, Entry]) -> None:
    page = bet_page(entries["b004"], {})
    assert "$ sharedllm bets run b004 --regime toy\n$ sharedllm bets run b004 --regime 135m" in page
    assert page.index("sharedllm bets run") < page.index("## The claim")


def test_an_unchanged_run_is_called_identical_in_words(entries: dict[str, Entry]) -> None:
    assert "registration, parameters, controls and criteria are **identical**" in bet_page(
        entries["b004"], {}
    )


def test_a_changed_parameter_is_named_with_both_values(entries: dict[str, Entry]) -> None:
    page = bet_page(with_result(entries["b004"], parameters={"seeds": [7]}), {})
    assert '<th scope="row">parameter seeds</th><td>[0, 1, 2]</td><td>[7]</td>' in page


def test_a_missing_parameter_differs(entries: dict[str, Entry]) -> None:
    assert "<td>[0, 1, 2]</td><td>–</td>" in bet_page(with_result(entries["b004"], parameters={}), {})


def test_a_foreign_registration_hash_is_named(entries: dict[str, Entry]) -> None:
    page = bet_page(with_result(entries["b004"], registration_sha256="f" * 64), {})
    assert "the run **differs** from the registration" in page


def test_a_changed_rule_is_named(entries: dict[str, Entry]) -> None:
    first, *rest = entries["b004"].results["toy"].criteria
    page = bet_page(with_result(entries["b004"], criteria=[replace(first, rule="ratio <= 9"), *rest]), {})
    assert "<td>ratio &lt;= 1.1</td><td>ratio &lt;= 9</td>" in page


def test_a_notice_stands_above_the_summary(entries: dict[str, Entry]) -> None:
    page = bet_page(entries["b018"], {})
    assert page.index("Retracted in the regime toy") < page.index("Measures one made\\-up ratio")


def test_an_exploratory_run_says_that_it_decides_nothing(entries: dict[str, Entry]) -> None:
    assert "is exploratory, and decides nothing" in bet_page(
        with_result(entries["b004"], fate="exploratory"), {}
    )


def test_a_bet_that_never_ran_has_a_page(entries: dict[str, Entry]) -> None:
    page = bet_page(replace(entries["b004"], results={}, events=()), {})
    assert "Nothing yet: no run has been recorded." in page
    assert "Not registered yet" in page


def test_related_bets_are_linked_where_they_exist(entries: dict[str, Entry]) -> None:
    pages = {"b004": "b004-mixture-combiner"}
    assert "[b004](b004-mixture-combiner.md)" in bet_page(entries["b018"], pages)


def test_the_page_is_the_same_text_every_time(entries: dict[str, Entry]) -> None:
    assert bet_page(entries["b061"], {}) == bet_page(entries["b061"], {})


def test_the_status_page_has_a_row_per_recorded_run(entries: dict[str, Entry]) -> None:
    table = status_page(list(entries.values()))
    assert table.count("<tr>") == 1 + sum(len(entry.results) for entry in entries.values())


def test_without_a_run_the_status_page_says_so() -> None:
    assert "No run has been recorded yet." in status_page([])


def test_a_registered_bet_without_controls_says_what_that_means(
    tmp_path: Path, making: SimpleNamespace, made_up: Catalogue
) -> None:
    root = tmp_path / "checkout"
    shutil.copytree(made_up.repository, root)
    toml = root / "catalogue" / "foundations" / "b004-mixture-combiner" / "bet.toml"
    text = toml.read_text(encoding="utf-8")
    start, end = text.index("[[registration.controls]]"), text.index("[[registration.criteria]]")
    toml.write_text(text[:start] + text[end:], encoding="utf-8")
    entry = read_entries(Catalogue(root / "catalogue"))[0]
    assert "nothing could have made a run void" in bet_page(entry, {})
