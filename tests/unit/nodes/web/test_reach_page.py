"""Who can use the page: by keyboard alone, on a narrow screen, in the dark, without JavaScript."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.unit.nodes.web.conftest import ask, pick, replied
from tests.unit.nodes.web.fake_primary import FakePrimary

pytestmark = pytest.mark.slow
LEAST = 4.5  # WCAG 2.2, 1.4.3 AA

UNREADABLE = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
FITS = "document.documentElement.scrollWidth <= innerWidth && document.body.scrollWidth <= innerWidth"
LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 2


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.textContent || document.activeElement.id"))


def opened(page: Page) -> None:
    """Bring every part of the page to light: reply, token with layers, settings, figures."""
    ask(page)
    replied(page)
    pick(page, "universe")
    page.locator(".signed summary").first.click()
    page.locator("details").evaluate_all("(all) => all.forEach((one) => (one.open = true))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(visit: Callable[..., Page], scheme: str) -> None:
    page = visit(color_scheme=scheme, reduced_motion="reduce")
    opened(page)
    found = page.evaluate(UNREADABLE, LEAST)
    assert found["seen"] > 80
    assert not found["bad"]


def test_the_measure_of_contrast_finds_what_is_too_faint(page: Page) -> None:
    page.evaluate("document.documentElement.style.setProperty('--ink-soft', '#8a8f99')")
    assert page.evaluate(UNREADABLE, LEAST)["bad"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_troubles_can_be_read(visit: Callable[..., Page], primary: FakePrimary, scheme: str) -> None:
    primary.script.refusal = (503, "Layers 10–19 have no home.", {})
    page = visit(color_scheme=scheme)
    ask(page)
    expect(page.get_by_role("alert")).to_contain_text("no home")
    primary.script.tell(status="none", spans=[], sentence="Layers 10–19 have no home.")
    expect(page.locator("#status")).to_have_text("no pipeline")
    assert not page.evaluate(UNREADABLE, LEAST)["bad"]


def test_the_button_turns_the_dark_on_and_it_stays(page: Page) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="Dark mode").click()
    dark = page.evaluate(paper)
    page.reload()
    assert light != dark == page.evaluate(paper)
    expect(page.get_by_role("button", name="Dark mode")).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("width", [320, 360])
def test_a_narrow_screen_never_scrolls_sideways(
    visit: Callable[..., Page], primary: FakePrimary, width: int
) -> None:
    primary.script.reply += f"\n\n{LONG}\n\n```\n{LONG}\n```\n`{LONG}`"
    page = visit(width=width, height=700)
    assert page.evaluate(FITS)
    page.get_by_role("button", name="Pipeline").click()
    expect(page.locator(".spans li").first).to_be_visible()
    assert page.evaluate(FITS)
    ask(page, LONG)
    replied(page)
    assert page.evaluate(FITS)
    page.get_by_role("button", name="Pipeline").click()
    pick(page, "universe")
    page.locator(".signed summary").first.click()
    assert page.evaluate(FITS)


def test_on_a_narrow_screen_the_picked_token_stays_in_sight(visit: Callable[..., Page]) -> None:
    page = visit(width=360, height=740)
    ask(page)
    replied(page)
    pick(page, "nearly")
    token, panel = page.locator(".token.picked").bounding_box(), page.locator("#token").bounding_box()
    assert token is not None
    assert panel is not None
    assert token["y"] + token["height"] <= panel["y"]


def test_the_first_stop_of_the_keyboard_leads_to_the_message_box(page: Page) -> None:
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the message box"
    page.keyboard.press("Enter")
    assert focused(page) == "message"


def test_a_person_with_a_keyboard_alone_gets_to_a_token_and_back(page: Page) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.type("Why?")
    page.keyboard.press("Enter")
    replied(page)
    for _ in range(12):
        if focused(page) == "Walk the tokens":
            break
        page.keyboard.press("Shift+Tab")
    for key in ("Enter", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#token-title")).to_be_focused()
    expect(page.locator("#token-title")).to_have_text("Why ␣is?")
    page.keyboard.press("Escape")
    expect(page.locator("#token")).to_be_hidden()
    assert focused(page) == " is"
    page.keyboard.press("Escape")
    assert focused(page) == "Walk the tokens"


def test_a_person_with_a_keyboard_alone_opens_the_layers_of_a_machine(page: Page) -> None:
    ask(page)
    replied(page)
    page.locator(".reply-actions button", has_text="Walk").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_selector(".signed summary")
    for _ in range(12):
        page.keyboard.press("Tab")
        if "kettle" in focused(page):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("list", name="Layers of kettle")).to_be_visible()


def test_whatever_takes_the_focus_shows_it(page: Page) -> None:
    ask(page)
    replied(page)
    page.locator("body").click(position={"x": 1, "y": 1})
    plain = []
    for _ in range(18):
        page.keyboard.press("Tab")
        shown = page.evaluate(
            """() => { const at = document.activeElement, box = at.closest('.ask') ?? at;
               const [line, shadow] = [getComputedStyle(at).outlineStyle, getComputedStyle(box).boxShadow];
               return line !== 'none' || shadow !== 'none' || at === document.body; }"""
        )
        if not shown:
            plain.append(focused(page))
    assert not plain


def test_everything_that_can_be_pressed_has_a_name(page: Page) -> None:
    opened(page)
    nameless = page.locator("button, input, textarea, summary, [role=img], [role=log], dialog").evaluate_all(
        """(all) => all.filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length
             || one.getAttribute('aria-labelledby'))).map((one) => one.outerHTML)"""
    )
    assert not nameless


def test_without_javascript_a_message_says_what_to_do(visit: Callable[..., Page]) -> None:
    page = visit(java_script_enabled=False)
    expect(page.locator(".no-script")).to_contain_text("This page needs JavaScript")
    expect(page.locator(".no-script")).to_contain_text("sharedllm chat")
