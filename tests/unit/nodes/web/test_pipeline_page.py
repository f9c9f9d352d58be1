"""The live map: who computes which layers, how near the floor, and what happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from tests.unit.nodes.web.conftest import ask
from tests.unit.nodes.web.fake_primary import SPANS, FakePrimary

pytestmark = pytest.mark.slow


def rows(page: Page) -> list[str]:
    expect(page.locator(".spans li").first).to_be_visible()
    return [text.replace("\u00a0", " ") for text in page.locator(".spans li").all_inner_texts()]


def dot(page: Page) -> tuple[float, float]:
    circle = page.locator(".token-dot")
    return float(circle.get_attribute("cx") or 0), float(circle.get_attribute("cy") or 0)


def test_every_node_is_named_with_its_layers_times_and_path(page: Page) -> None:
    first, kettle, *_ = rows(page)
    assert "desk" in first
    for words in (
        "kettle layers 0–9",
        "computes 14 ms",
        "reached in 2.1 ms over the local network",
        "62 % busy",
    ):
        assert words in kettle


def test_the_floor_is_explained_in_a_plain_sentence(page: Page) -> None:
    expect(page.locator("#floor")).to_have_text(
        "Computing and the way between the machines need at least 48 ms for a token. It takes 53 ms, "
        "so the pipeline runs at 90 % of the best pace that these machines allow."
    )


def test_a_failover_is_told_as_it_happens(page: Page, primary: FakePrimary) -> None:
    rows(page)
    lamp = SPANS[1] | {"start": 0, "stop": 20}
    primary.script.tell(spans=[lamp, SPANS[2]], failovers=1)
    expect(page.get_by_role("log")).to_contain_text("kettle left; layers 0–9 are now with lamp.")
    expect(page.locator(".spans li")).to_have_count(3)


def test_a_failover_is_told_beside_the_reply_that_it_touched(page: Page, primary: FakePrimary) -> None:
    rows(page)
    primary.script.hold_after = 3
    ask(page)
    expect(page.locator(".reply .words")).to_have_text("The sky is")
    primary.script.tell(spans=[SPANS[0], SPANS[1] | {"stop": 30}], failovers=1)
    expect(page.locator(".reply-events")).to_have_text("old-laptop left; layers 20–29 are now with lamp.")


def test_layers_that_went_to_several_nodes_are_all_named(page: Page) -> None:
    told: list[str] = page.evaluate(
        """(spans) => import('/web/pipeline.js').then(({ changes }) => changes(spans, [
             { ...spans[0], stop: 15 }, { ...spans[2], start: 15 }]))""",
        SPANS,
    )
    assert told == ["lamp left; layers 10–14 are now with kettle, layers 15–19 are now with old-laptop."]


def test_a_new_division_without_a_loss_is_told_too(page: Page) -> None:
    told: list[str] = page.evaluate(
        """(spans) => import('/web/pipeline.js').then(({ changes }) => changes(spans, [
             { ...spans[0], stop: 12 }, { ...spans[1], start: 12 }, spans[2]]))""",
        SPANS,
    )
    assert told[0].startswith(
        "The layers were shared out anew: kettle has layers 0–11, lamp has layers 12–19"
    )


def test_nodes_that_were_left_out_come_with_their_sentence(page: Page) -> None:
    expect(page.locator("#left-out-list")).to_have_text(
        "attic-pi would make a token take 96 ms instead of 53 ms."
    )


def test_without_a_pipeline_its_sentence_is_shown(page: Page, primary: FakePrimary) -> None:
    rows(page)
    sentence = "Layers 10–29 lack a home; 61 MB of memory are missing."
    primary.script.tell(status="none", spans=[], sentence=sentence)
    expect(page.locator("#sentence")).to_have_text(sentence)
    expect(page.locator("#status")).to_have_text("no pipeline")
    expect(page.locator(".no-ring")).to_be_visible()


def test_a_coordinator_that_is_away_is_told(page: Page, primary: FakePrimary) -> None:
    rows(page)
    primary.script.tell(coordinator="away")
    expect(page.get_by_role("log")).to_contain_text("The coordinator can't be reached; what runs goes on.")


@pytest.mark.parametrize("how", ["ends", "stalls"])
def test_a_primary_without_news_is_told(
    page: Page, primary: FakePrimary, how: Literal["ends", "stalls"]
) -> None:
    rows(page)
    primary.script.news = how
    expect(page.locator("#status")).to_have_text("no news")
    primary.script.news = "flows"
    expect(page.get_by_role("log")).to_contain_text("The primary is heard again.")


def test_the_dot_travels_while_tokens_are_made(page: Page) -> None:
    rows(page)
    before = dot(page)
    page.wait_for_function(
        "(x) => Math.abs(Number(document.querySelector('.token-dot').getAttribute('cx')) - x) > 5",
        arg=before[0],
    )


def test_the_dot_rests_while_nothing_is_made(page: Page, primary: FakePrimary) -> None:
    rows(page)
    primary.script.tell(active=0)
    expect(page.locator("#ring")).not_to_have_class("at-work")
    assert dot(page) == (200, 57)


def test_with_reduced_motion_the_dot_stands_still(visit: Callable[..., Page]) -> None:
    page = visit(reduced_motion="reduce")
    rows(page)
    expect(page.locator("#ring")).to_have_class("at-work")
    assert dot(page) == (200, 57)


def test_the_pace_that_is_drawn_is_told(page: Page) -> None:
    expect(page.locator("#pace")).to_have_text(
        "Longer arcs take longer. The dot goes 20 times slower than it is."
    )


def test_the_pace_is_real_where_eyes_can_follow(page: Page, primary: FakePrimary) -> None:
    primary.script.tell(token_ms=1200.0)
    expect(page.locator("#pace")).to_contain_text("The dot goes at its real pace.")


def test_arcs_fill_the_turn_and_longer_times_are_longer(page: Page) -> None:
    arcs: list[dict[str, Any]] = page.evaluate(
        """(spans) => import('/web/ring.js').then(({ parts, shareOut }) =>
             shareOut(parts({ primary: { compute_ms: 4.8, hop_ms: 2 }, name: 'desk', spans })))""",
        SPANS,
    )
    assert sum(arc["to"] - arc["from"] for arc in arcs) == pytest.approx(360)
    workers = [arc["to"] - arc["from"] for arc in arcs if arc["kind"] == "worker"]
    assert workers == sorted(workers, reverse=True)


def test_names_of_nodes_are_text_and_never_markup(page: Page, primary: FakePrimary) -> None:
    rows(page)
    name = "<img src=x onerror=alert(1)>"
    primary.script.tell(spans=[SPANS[0] | {"name": name, "stop": 30}], left_out=[[name, name]], sentence=name)
    expect(page.locator(".spans li").nth(1)).to_contain_text(name)
    assert page.locator("img").count() == 0


def test_forty_workers_still_fit_the_ring(page: Page, primary: FakePrimary) -> None:
    many = [SPANS[0] | {"node": str(i), "name": f"n{i}", "start": i, "stop": i + 1} for i in range(40)]
    primary.script.tell(spans=many)
    expect(page.locator(".spans li")).to_have_count(41)
    expect(page.locator(".station")).to_have_count(41)


def test_the_audit_logs_key_can_be_copied(page: Page, primary: FakePrimary) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_text("More figures").click()
    expect(page.locator("#audit")).to_contain_text("a log of 1,204 entries")
    page.get_by_role("button", name="Copy the key").click()
    expect(page.locator("#audit-copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "desk+0123abcd+AbCd="
    primary.script.tell(audit=None)
    expect(page.locator("#audit")).to_be_hidden()
