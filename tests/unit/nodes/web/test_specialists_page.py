"""Several specialists on the page: who is asked, whose word it is, why, and the receipt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.unit.nodes.web.conftest import ask, pick, replied
from tests.unit.nodes.web.fake_primary import EXPLANATION, FakePrimary, shares

pytestmark = pytest.mark.slow

NAMES = ("code", "scripture", "verse")


def served(name: str, kind: str, *members: str) -> dict[str, Any]:
    return {"id": name, "sharedllm": {"kind": kind, "members": list(members or (name,))}}


MODELS = [
    served("mixture", "mixture", *NAMES),
    served("smollm2-135m-instruct", "base"),
    *(served(name, "specialist") for name in NAMES),
    served("me", "adapter"),
]
RESPONSIBILITIES = [
    {
        "name": name,
        "share": share,
        "logprob": -1.0,
        "weight": 1 / 3,
        "evidence": -share,
        "prior": -1.0986 * share,
    }
    for name, share in shares(NAMES, 0).items()
]


@pytest.fixture
def federation(primary: FakePrimary) -> FakePrimary:
    primary.script.models, primary.script.specialists = MODELS, NAMES
    members = [
        {"name": name, **{key: EXPLANATION[key] for key in ("contributions", "embedding")}, "total": total}
        for name, total in zip(NAMES, (7.04, 3.5, 2.25), strict=True)
    ]
    primary.script.explanation = EXPLANATION | {
        "responsibilities": RESPONSIBILITIES,
        "diversity": 0.8,
        "leading": "code",
        "members": members,
    }
    primary.script.receipt = {"schema": "a receipt"}
    return primary


@pytest.fixture
def mixed(federation: FakePrimary, page: Page) -> Page:
    """The page after a mixture has answered."""
    ask(page)
    replied(page)
    return page


@pytest.mark.usefixtures("federation")
def test_the_menu_offers_all_models_and_begins_with_the_default(page: Page) -> None:
    menu = page.get_by_label("Model that answers next")
    expect(menu).to_have_value("mixture")
    assert menu.locator("optgroup").evaluate_all("all => all.map(one => one.label)") == [
        "Together",
        "Specialists",
        "Base",
        "Adapters",
    ]
    expect(menu.locator("option").first).to_have_text("mixture of code, scripture, verse")


def test_a_single_model_needs_no_menu(page: Page) -> None:
    expect(page.locator("#model")).to_have_text("smollm2-135m-instruct")
    expect(page.get_by_label("Model that answers next")).to_be_hidden()


def test_the_chosen_model_is_asked_and_named(federation: FakePrimary, page: Page) -> None:
    page.get_by_label("Model that answers next").select_option("me")
    ask(page)
    replied(page)
    assert federation.script.asked[0][1]["model"] == "me"
    expect(page.locator(".reply .who")).to_have_text("me")


def test_a_choice_of_model_lasts_as_long_as_the_tab(federation: FakePrimary, page: Page) -> None:
    page.get_by_label("Model that answers next").select_option("verse")
    page.reload()
    expect(page.get_by_label("Model that answers next")).to_have_value("verse")


def test_every_word_is_underlined_in_the_way_of_the_specialist_that_led(mixed: Page) -> None:
    styles = mixed.locator(".words .token").evaluate_all(
        "all => all.slice(0, 6).map(one => getComputedStyle(one).textDecorationStyle)"
    )
    assert styles == ["solid", "dashed", "dotted"] * 2


def test_the_legend_says_whose_line_is_whose(mixed: Page) -> None:
    rows = mixed.locator("#leaders .sample")
    assert rows.all_text_contents() == list(NAMES)
    styles = rows.evaluate_all("all => all.map(one => getComputedStyle(one).textDecorationStyle)")
    assert styles == ["solid", "dashed", "dotted"]


def test_lines_tell_specialists_or_surprise_but_never_both(mixed: Page) -> None:
    expect(mixed.get_by_label("Mark specialists")).to_be_checked()
    expect(mixed.get_by_label("Mark surprise")).not_to_be_checked()
    mixed.get_by_label("Mark surprise").check()
    expect(mixed.get_by_label("Mark specialists")).not_to_be_checked()
    expect(mixed.locator("#leaders")).to_be_hidden()
    expect(mixed.locator("#surprises")).to_be_visible()


def test_a_model_alone_has_no_marks_of_specialists(page: Page) -> None:
    ask(page)
    replied(page)
    expect(page.get_by_label("Mark specialists")).to_be_hidden()
    expect(page.get_by_label("Mark surprise")).to_be_checked()


def test_a_tokens_shares_are_bars_with_names_that_sum_to_one(mixed: Page) -> None:
    pick(mixed, "sky")
    rows = mixed.get_by_role("list", name="Responsibility of each specialist").get_by_role("listitem")
    texts = rows.all_text_contents()
    assert [text.rstrip("0123456789.\u00a0%") for text in texts] == list(NAMES)
    values = [float(text.split("\u00a0")[0].lstrip("abcdefghijklmnopqrstuvwxyz")) for text in texts]
    assert sum(values) == pytest.approx(100, abs=0.2)


def test_a_tokens_shares_are_explained_by_weights_and_exact_lines(mixed: Page) -> None:
    pick(mixed, "sky")
    expect(mixed.locator(".explained")).to_contain_text("code weighed 33.3\u00a0% and gave it 36.8\u00a0%.")
    mixed.get_by_text("The exact lines").click()
    expect(mixed.locator(".explained dl")).to_contain_text("diversity+0.80\u00a0nats")


def test_the_layers_of_each_member_can_be_looked_into(mixed: Page) -> None:
    pick(mixed, "sky")
    group = mixed.get_by_role("group", name="Whose layers to look into")
    expect(group.get_by_role("button", name="code")).to_have_attribute("aria-pressed", "true")
    expect(mixed.locator(".explained")).to_contain_text("Together: +7.04")
    group.get_by_role("button", name="verse").click()
    expect(mixed.locator(".explained")).to_contain_text("Together: +2.25")


def test_an_explanation_is_asked_of_the_model_that_spoke(federation: FakePrimary, mixed: Page) -> None:
    mixed.get_by_label("Model that answers next").select_option("verse")
    pick(mixed, "sky")
    assert federation.script.asked[-1][1]["model"] == "mixture"


def test_walking_the_tokens_says_who_led_each(mixed: Page) -> None:
    mixed.get_by_role("button", name="Walk the tokens").click()
    expect(mixed.locator(":focus")).to_have_attribute(
        "aria-label", "The, 95.1\u00a0%, led by code, token 1 of 98"
    )


def test_the_receipt_is_saved_as_it_came(mixed: Page, tmp_path: Path) -> None:
    with mixed.expect_download() as coming:
        mixed.get_by_role("link", name="Save the receipt").click()
    assert coming.value.suggested_filename == "receipt-cmpl-1-0.json"
    coming.value.save_as(tmp_path / "receipt.json")
    assert json.loads((tmp_path / "receipt.json").read_text()) == {"schema": "a receipt"}


def test_a_receipt_that_is_not_there_is_a_sentence(federation: FakePrimary, mixed: Page) -> None:
    federation.script.receipt = None
    mixed.get_by_role("link", name="Save the receipt").click()
    expect(mixed.locator(".reply-events")).to_contain_text("There is no receipt.")


def test_an_answer_without_a_receipt_offers_none(primary: FakePrimary, page: Page) -> None:
    ask(page)
    replied(page)
    expect(page.get_by_role("link", name="Save the receipt")).to_be_hidden()


def test_nothing_runs_over_the_edge_of_a_telephone(
    federation: FakePrimary, visit: Callable[..., Page]
) -> None:
    page = visit(width=360, height=740)
    ask(page)
    replied(page)
    pick(page, "sky")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
