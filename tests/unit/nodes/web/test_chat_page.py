"""The chat in a real browser: streaming, stopping, refusals, and nothing that leaves or escapes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.unit.nodes.web.conftest import ask, pick, replied
from tests.unit.nodes.web.fake_primary import FakePrimary

pytestmark = pytest.mark.slow
HOSTILE = '<img src=x onerror="document.title=1"> [a](javascript:alert(1)) <script>document.title=2</script>'


def test_words_appear_before_the_reply_has_ended(page: Page, primary: FakePrimary) -> None:
    primary.script.hold_after = 3
    ask(page)
    expect(page.locator(".reply.growing .words")).to_have_text("The sky is")


def test_the_whole_reply_is_shown_as_light_markdown(page: Page) -> None:
    ask(page)
    replied(page)
    assert page.locator(".words strong").inner_text() == "universe is finite in age"
    assert page.locator(".words ol li").count() == 2
    assert page.locator(".words pre").inner_text().startswith("def night(sky):\n    return sky < 1")


@pytest.mark.parametrize("by", ["button", "escape"])
def test_stopping_hangs_up_and_keeps_the_words(page: Page, primary: FakePrimary, by: str) -> None:
    primary.script.hold_after = 3
    primary.script.reply = "word " * 20_000
    ask(page)
    expect(page.locator(".reply .words")).to_contain_text("word word")
    if by == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    replied(page)
    primary.script.go.set()
    assert "You stopped it here" in page.locator(".reply-notes").inner_text()
    assert primary.script.hung_up.wait(15)


def test_the_next_question_carries_the_talk_and_the_settings(page: Page, primary: FakePrimary) -> None:
    page.get_by_text("Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Seed", exact=True).fill("7")
    primary.script.reply = "Because."
    ask(page, "Why?")
    replied(page)
    ask(page, "Why not?")
    expect(page.locator(".reply-actions:not([hidden])")).to_have_count(2)
    body = primary.script.asked[-1][1]
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
    assert (body["seed"], body["temperature"], body["max_tokens"], body["stream"]) == (7, 0.7, 512, True)


def test_a_new_chat_forgets_the_old_one(page: Page, primary: FakePrimary) -> None:
    ask(page)
    replied(page)
    page.get_by_role("button", name="New chat").click()
    ask(page, "Once more")
    replied(page)
    assert len(primary.script.asked[-1][1]["messages"]) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_shows_its_sentence_and_can_be_tried_again(
    page: Page, primary: FakePrimary, status: int
) -> None:
    primary.script.refusal = (status, "Layers 10–19 have no home; 40 MB are missing.", {"Retry-After": "3"})
    ask(page)
    expect(page.get_by_role("alert")).to_contain_text("40 MB are missing. It asks you to wait 3 s.")
    primary.script.refusal = None
    page.get_by_role("button", name="Try again").click()
    replied(page)
    expect(page.get_by_role("alert")).to_have_text("")


def test_a_reply_that_breaks_off_keeps_its_words_and_says_why(page: Page, primary: FakePrimary) -> None:
    primary.script.break_after = 3
    ask(page)
    expect(page.get_by_role("alert")).to_contain_text("Layers 10–19 lost their home.")
    expect(page.locator(".reply .words")).to_have_text("The sky is")


def test_a_reply_cut_by_the_limit_says_so(page: Page, primary: FakePrimary) -> None:
    primary.script.finish_reason = "length"
    ask(page)
    expect(page.locator(".reply-notes")).to_contain_text("the most tokens that the settings allow")


def test_a_key_is_asked_for_and_kept_in_the_tab_alone(
    visit: Callable[..., Page], primary: FakePrimary
) -> None:
    primary.script.key = "sesame"
    page = visit()
    page.get_by_label("API key").fill("sesame")
    page.keyboard.press("Enter")
    ask(page)
    replied(page)
    expect(page.locator("#status")).to_contain_text("ready")
    assert page.evaluate("[sessionStorage, localStorage].map(s => JSON.stringify(s).includes('sesame'))") == [
        True,
        False,
    ]


def test_a_wrong_key_is_asked_for_again(visit: Callable[..., Page], primary: FakePrimary) -> None:
    primary.script.key = "sesame"
    page = visit()
    page.get_by_label("API key").fill("poppy")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="That key was not the right one")).to_be_visible()


def test_what_the_model_says_never_becomes_markup(page: Page, primary: FakePrimary) -> None:
    primary.script.reply = HOSTILE
    ask(page, HOSTILE)
    replied(page)
    assert page.locator(".reply .words").inner_text() == HOSTILE
    assert page.locator(".turn img, .turn script, .turn a").count() == 0
    assert page.title() == "SharedLLM"


def test_nothing_leaves_the_primary_and_the_console_is_silent(
    visit: Callable[..., Page], primary: FakePrimary
) -> None:
    page = visit(go=False)
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(primary.url)
    ask(page)
    replied(page)
    pick(page, "universe")
    page.get_by_role("button", name="Dark mode").click()
    assert not complaints
    assert len(requests) > 10
    assert not [url for url in requests if not url.startswith(primary.url + "/")]


def test_a_screen_reader_hears_whole_sentences(page: Page, primary: FakePrimary) -> None:
    primary.script.reply = "One thing. Two things. Three"
    primary.script.hold_after = 5  # within the second sentence
    ask(page)
    expect(page.locator("#spoken p")).to_have_text(["One thing."])
    primary.script.go.set()
    expect(page.locator("#spoken")).to_have_text("One thing. Two things. Three")
    assert page.locator("#spoken").get_attribute("aria-live") == "polite"
