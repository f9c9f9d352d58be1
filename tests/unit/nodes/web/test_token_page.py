"""Behind a token: its probability, what else could have stood there, and who moved it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.unit.nodes.web.conftest import ask, pick, replied
from tests.unit.nodes.web.fake_primary import EXPLANATION, FakePrimary

pytestmark = pytest.mark.slow


@pytest.fixture
def reply(page: Page) -> Page:
    ask(page)
    replied(page)
    return page


def test_a_token_shows_its_likeliest_alternatives(reply: Page) -> None:
    pick(reply, "universe")
    rows = reply.get_by_role("list", name="What could have stood here").get_by_role("listitem")
    assert rows.count() == 5
    assert "chosen" in rows.first.inner_text()


def test_a_token_shows_how_much_each_machine_moved_it(reply: Page) -> None:
    pick(reply, "universe")
    expect(reply.locator(".explained")).to_contain_text(
        "old-laptop raised it most (+6.05); lamp held it back (−0.72)."
    )
    assert reply.locator(".signed summary .bar-value").all_inner_texts() == ["+1.31", "−0.72", "+6.05"]


def test_bars_are_as_long_as_their_logits(reply: Page) -> None:
    pick(reply, "universe")
    widths = [
        box["width"]
        for bar in reply.locator(".signed summary .bar > span").all()
        if (box := bar.bounding_box()) is not None
    ]
    assert widths[0] / widths[2] == pytest.approx(1.31 / 6.05, rel=0.05)


def test_a_machine_opens_to_its_layers(reply: Page) -> None:
    pick(reply, "universe")
    reply.locator(".signed summary", has_text="lamp").click()
    layers = reply.get_by_role("list", name="Layers of lamp").get_by_role("listitem")
    assert layers.count() == 10
    assert layers.first.inner_text().startswith("layer 10")


def test_the_primary_is_asked_with_the_tokens_up_to_the_picked_one(reply: Page, primary: FakePrimary) -> None:
    pick(reply, "sky")
    path, body = primary.script.asked[-1]
    assert path == "/v1/sharedllm/explain"
    assert (body["tokens"], body["index"]) == ([100, 101], 1)
    assert body["messages"] == [{"role": "user", "content": "Why is the sky dark?"}]


def test_without_an_explanation_a_sentence_says_so_and_alternatives_stay(
    reply: Page, primary: FakePrimary
) -> None:
    primary.script.explanation = None
    pick(reply, "universe")
    expect(reply.locator(".explained")).to_contain_text("Nobody could say. lamp does not answer.")
    assert reply.locator("#token .bars").count() == 1
    primary.script.explanation = EXPLANATION
    reply.get_by_role("button", name="Try again").click()
    expect(reply.locator(".signed summary")).to_have_count(3)


def test_one_can_leaf_to_the_next_token(reply: Page) -> None:
    pick(reply, "sky")
    reply.get_by_role("button", name="Later →").click()
    expect(reply.locator("#token-title")).to_have_text("Why ␣is?")
    expect(reply.locator(".token.picked")).to_have_text(" is")


def test_surprise_is_told_by_a_line_as_well_as_by_a_tint(reply: Page) -> None:
    told = reply.locator(".sample").evaluate_all(
        """(all) => all.map((one) => getComputedStyle(one))
             .map(({ textDecorationLine: line, textDecorationStyle: style }) => `${line} ${style}`)"""
    )
    assert told == ["none solid", "underline dotted", "underline dashed", "underline solid"]


def test_marks_follow_the_probabilities_that_the_legend_names(reply: Page) -> None:
    levels = reply.evaluate(
        "import('/web/reply.js').then(({ surprise }) => [0.9, 0.5, 0.49, 0.1, 0.09, 0.02, 0.01]"
        ".map((share) => surprise(Math.log(share + 1e-9))))"
    )
    assert levels == [0, 0, 1, 1, 2, 2, 3]


def test_marks_can_be_switched_off(reply: Page) -> None:
    marked = reply.locator(".turns .surprise-1, .turns .surprise-2").first
    expect(marked).not_to_have_css("text-decoration-line", "none")
    reply.get_by_label("Mark surprise").uncheck()
    expect(marked).to_have_css("text-decoration-line", "none")


def test_a_token_without_text_can_be_leafed_to(page: Page, primary: FakePrimary) -> None:
    page.evaluate(
        """async () => {
          const { Reply } = await import('/web/reply.js');
          const reply = new Reply('m');
          reply.add(1, 'a', -0.1, []);
          reply.add(2, '', -0.1, []);
          reply.add(3, 'é', -0.1, []);
          reply.add(-1, '!', 0, []);
          reply.finish('');
          document.getElementById('turns').append(reply.element);
        }"""
    )
    pick(page, "a")
    page.get_by_role("button", name="Later →").click()
    expect(page.locator("#token-title")).to_contain_text("no text of its own")
    assert page.locator(".token").all_inner_texts() == ["a", "é!"]
