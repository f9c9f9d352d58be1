"""The page against the primary's own HTTP, rather than a made-up one: the two agree on every field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.unit.nodes.api.stand_in import StandIn, running
from tests.unit.nodes.web.conftest import WAIT_MS, ask, replied
from tests.unit.nodes.web.fake_primary import EXPLANATION, state

pytestmark = pytest.mark.slow
KEY = "open sesame, all of you"


class Served(StandIn):
    """The API's stand-in, with the whole picture that a page wants."""

    def state(self) -> dict[str, Any]:
        return state(model=self.model)

    def explain(
        self, prompt: Sequence[int], token: int, said: Sequence[int] = (), model: str = ""
    ) -> dict[str, Any]:
        return super().explain(prompt, token, said, model) | EXPLANATION


@pytest.fixture
def service() -> Served:
    return Served()


@pytest.fixture
def page(chromium: Browser, service: Served) -> Iterator[Page]:
    with running(service, api_key=KEY) as server:
        context = chromium.new_context()
        context.set_default_timeout(WAIT_MS)
        opened = context.new_page()
        opened.goto(server.url)
        opened.get_by_label("API key").fill(KEY)
        opened.keyboard.press("Enter")
        expect(opened.locator("#status")).to_have_text("ready, 3 workers")
        yield opened
        context.close()


def test_a_reply_streams_into_the_page(page: Page) -> None:
    ask(page)
    replied(page)
    expect(page.locator(".words")).to_contain_text("the cat sat")


def test_the_picked_token_is_explained_after_what_went_before_it(page: Page, service: Served) -> None:
    ask(page)
    replied(page)
    page.locator("[data-index='2']").first.click()
    expect(page.locator(".signed summary")).to_have_count(3)
    stream, asked = service.streams[0], service.asks[0]
    assert service.explained == [([*asked.prompt, *stream.script[:2]], stream.script[2])]


def test_stopping_in_the_page_cancels_the_request(page: Page, service: Served) -> None:
    service.hold_at = 2
    ask(page)
    service.wait_until_held()
    page.get_by_role("button", name="Stop").click()
    assert service.streams[0].cancelled.wait(WAIT_MS / 1000)


def test_the_console_is_silent_under_the_policy_of_the_primary(page: Page) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.reload()
    ask(page)
    replied(page)
    assert not complaints
