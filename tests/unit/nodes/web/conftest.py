"""A headless Chromium, a page in it, and the made-up primary that it talks to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.unit.nodes.web.fake_primary import FakePrimary

CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 15_000
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing; the page is tested in it: apt-get install chromium (Debian).")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def primary() -> Iterator[FakePrimary]:
    fake = FakePrimary()
    yield fake
    fake.close()


@pytest.fixture
def visit(chromium: Browser, primary: FakePrimary) -> Iterator[Callable[..., Page]]:
    """Open the page in a fresh context, ``visit(width=360, color_scheme="dark")``; blank without ``go``."""
    contexts = []

    def opened(*, width: int = 1280, height: int = 900, go: bool = True, **options: Any) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        if go:
            page.goto(primary.url)
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def page(visit: Callable[..., Page]) -> Page:
    return visit()


def ask(page: Page, words: str = "Why is the sky dark?") -> None:
    """Type a message and send it."""
    page.get_by_label("Message", exact=True).fill(words)
    page.keyboard.press("Enter")


def replied(page: Page) -> None:
    """Wait for the end of the reply."""
    page.wait_for_selector(".reply:not(.growing) .reply-actions:not([hidden])")


def pick(page: Page, words: str) -> None:
    """Click the first token that reads so, and wait for its explanation."""
    page.locator(".token", has_text=words).first.click()
    page.wait_for_selector(".explained h3")
