"""The page's files, the state it draws, explanations, probes and metrics."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sharedllm.nodes.api import page
from tests.unit.nodes.api.stand_in import DEADLINE_S, StandIn, running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("web")
    (made / "index.html").write_text("<!doctype html><title>naïve</title>", encoding="utf-8")
    (made / "main.js").write_text("export {};", encoding="utf-8")
    (made / "style.css").write_text("a {}", encoding="utf-8")
    (made / "icon.svg").write_text("<svg/>", encoding="utf-8")
    (made / "secret.pem").write_text("x", encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def pages(stand_in: StandIn, folder: Path) -> Iterator[httpx.Client]:
    with running(stand_in, web=folder) as started, httpx.Client(base_url=started.url) as made:
        yield made


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/web/index.html", "text/html; charset=utf-8"),
        ("/web/main.js", "text/javascript; charset=utf-8"),
        ("/web/style.css", "text/css; charset=utf-8"),
        ("/web/icon.svg", "image/svg+xml"),
    ],
)
def test_a_file_has_its_type_and_is_asked_for_again(
    pages: httpx.Client, folder: Path, path: str, kind: str
) -> None:
    answer = pages.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.content == (folder / (path.rpartition("/")[2] or "index.html")).read_bytes()


def test_an_unchanged_file_is_not_sent_again(pages: httpx.Client) -> None:
    tag = pages.get("/web/main.js").headers["etag"]
    again = pages.get("/web/main.js", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_a_changed_file_is_sent(pages: httpx.Client, folder: Path) -> None:
    tag = pages.get("/web/style.css").headers["etag"]
    (folder / "style.css").write_text("b {}", encoding="utf-8")
    assert pages.get("/web/style.css", headers={"if-none-match": tag}).text == "b {}"


@pytest.mark.parametrize(
    "path",
    [
        "/web/",
        "/web/nothing.js",
        "/web/secret.pem",
        "/web/../index.html",
        "/web/%2e%2e/api/app.py",
        "/web/..%2fapi%2fapp.py",
        "/web//etc/passwd",
        "/web/%00",
    ],
)
def test_nothing_else_is_served(pages: httpx.Client, path: str) -> None:
    assert pages.get(path).status_code == 404


def test_the_state_is_there(web: httpx.Client) -> None:
    assert web.get("/v1/sharedllm/state").json() == {"model": "smol", "status": "ready", "active": 0}


def test_the_state_comes_again_and_again(
    web: httpx.Client, service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "STATE_EVERY_S", 0.01)
    seen = []
    with web.stream("GET", "/v1/sharedllm/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line:
                seen.append(json.loads(line.removeprefix("data: ")))
            if len(seen) == 3:
                break
    assert seen == [service.state()] * 3


def test_too_many_watchers_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_WATCHERS", 1)
    with running(StandIn()) as server:  # nobody from another test may still be leaving
        address = f"{server.url}/v1/sharedllm/events"
        with httpx.stream("GET", address) as first, httpx.stream("GET", address) as second:
            assert (first.status_code, second.status_code) == (200, 429)


def test_a_watcher_that_leaves_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_WATCHERS", 1)
    with running(StandIn()) as server:
        address = f"{server.url}/v1/sharedllm/events"
        for _ in range(2):
            with httpx.stream("GET", address) as answer:
                assert answer.status_code == 200
            server.settle()


def test_a_token_is_explained_after_what_came_before_it(web: httpx.Client, service: StandIn) -> None:
    ask = {"prompt": [5, 6], "tokens": [7, 8, 9], "index": 1}
    assert web.post("/v1/sharedllm/explain", json=ask).json()["token"] == 8
    assert service.explained == [([5, 6, 7], 8)]


def test_a_token_of_a_chat_is_explained_after_its_messages(web: httpx.Client, service: StandIn) -> None:
    messages = [{"role": "user", "content": "hello"}]
    ask = {"messages": messages, "prompt": None, "tokens": [7], "index": 0}
    web.post("/v1/sharedllm/explain", json=ask)
    assert service.explained == [(service.tokenizer.chat_tokens(messages), 7)]


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        ({}, "tokens is null"),
        ({"prompt": [5], "tokens": [7], "index": 1}, "index is 1"),
        ({"prompt": [5], "tokens": [7], "index": True}, "index is true"),
        ({"prompt": [5], "tokens": [10**9], "index": 0}, "tokens is 1000000000"),
        ({"tokens": [7], "index": 0}, "prompt is null"),
        ({"prompt": [], "tokens": [7], "index": 0}, "prompt is empty"),
        ({"prompt": [5] * 300, "tokens": [7], "index": 0}, "this model's context is 256"),
        ({"prompt": [5], "tokens": [7], "index": 0, "colour": 1}, "colour is not a parameter"),
        ({"messages": [{"role": "x"}], "tokens": [7], "index": 0}, "messages[0].role"),
    ],
    ids=str,
)
def test_a_wrong_wish_for_an_explanation_is_named(
    web: httpx.Client, service: StandIn, ask: dict[str, Any], expected: str
) -> None:
    answer = web.post("/v1/sharedllm/explain", json=ask)
    assert answer.status_code == 400
    assert expected in answer.json()["error"]["message"]


def test_explanations_are_made_one_at_a_time(
    web: httpx.Client, service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, end, together = threading.Semaphore(0), threading.Event(), []

    def explain(prompt: object, token: int, *more: object) -> dict[str, Any]:
        together.append(token)
        begun.release()
        assert end.wait(DEADLINE_S)
        return {"before": len(together)}

    monkeypatch.setattr(service, "explain", explain)
    monkeypatch.setattr(page, "MAX_EXPLAINING", 2)
    statuses: list[int] = []

    def ask() -> None:
        ask = {"prompt": [5], "tokens": [7], "index": 0}
        statuses.append(web.post("/v1/sharedllm/explain", json=ask).status_code)
        if statuses == [429]:
            end.set()

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    assert begun.acquire(timeout=DEADLINE_S)
    for asker in askers:
        asker.join(DEADLINE_S)
    assert statuses == [429, 200, 200]


def test_readiness_is_the_services(web: httpx.Client, service: StandIn) -> None:
    assert web.get("/readyz").json()["ready"] is True
    service.is_ready = (False, "No token has gone through the pipeline yet.")
    answer = web.get("/readyz")
    assert (answer.status_code, answer.json()["sentence"]) == (503, service.is_ready[1])


def test_health_is_that_it_answers(web: httpx.Client) -> None:
    assert web.get("/healthz").json() == {"status": "ok"}


def metric(web: httpx.Client, name: str) -> float:
    lines = web.get("/metrics").text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " ")), 0.0)


@pytest.mark.parametrize(
    ("name", "grows"),
    [
        ('sharedllm_http_requests_total{method="POST",route="/v1/completions",status="200"}', 1),
        ('sharedllm_requests_total{outcome="length"}', 1),
        ('sharedllm_tokens_total{kind="prompt"}', 2),
        ('sharedllm_tokens_total{kind="cached"}', 2),
        ("sharedllm_first_token_seconds_count", 1),
    ],
)
def test_what_was_served_is_counted(web: httpx.Client, name: str, grows: int) -> None:
    before = metric(web, name)
    web.post("/v1/completions", json={"prompt": [5, 6], "max_tokens": 3})
    until_s = time.monotonic() + 5  # an answer is counted when it has been sent
    while metric(web, name) < before + grows and time.monotonic() < until_s:
        pass
    assert metric(web, name) == before + grows


def test_what_was_refused_is_counted_under_no_name_of_the_callers(web: httpx.Client) -> None:
    web.get("/v1/secret-path")
    text = web.get("/metrics").text
    assert 'route="none",status="404"' in text
    assert "secret-path" not in text
