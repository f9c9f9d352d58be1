"""What a primary shows of itself, and when it calls itself ready."""

from __future__ import annotations

import json

from tests.unit.nodes.primary.talking import ask, one, prompt
from tests.unit.nodes.primary.threads import Place

PROMISED = {
    "model", "node", "name", "epoch", "pipeline", "status", "sentence", "spans", "primary", "tokens_per_s",
    "token_ms", "floor_ms", "floor_percent", "predicted_ms", "active", "waiting", "capacity_tokens",
    "used_tokens", "prefix_hits", "failovers", "left_out", "wire", "coordinator",
}  # fmt: skip
PROMISED_OF_A_SPAN = {"node", "name", "host", "start", "stop", "compute_ms", "hop_ms", "busy", "path"}


def test_the_picture_shows_all_that_was_promised(ring: Place) -> None:
    ring.loop.start()
    ask(ring, prompt(20), prompt(30))
    state = ring.primary.state()
    assert state.keys() >= PROMISED
    assert all(span.keys() == PROMISED_OF_A_SPAN for span in state["spans"])
    json.dumps(state, allow_nan=False)


def test_the_picture_names_who_computes_what(ring: Place) -> None:
    ring.loop.start()
    one(ring, prompt(20))
    state = ring.primary.state()
    assert [(s["name"], s["host"], s["start"], s["stop"], s["path"]) for s in state["spans"]] == [
        ("W1", "host of w1", 0, 2, "lan"),
        ("W2", "host of w2", 2, 4, "lan"),
    ]
    assert (state["status"], state["wire"], state["coordinator"]) == ("ready", "fp16", "up")
    assert state["left_out"] == [["w9", "Slow."]]


def test_the_pictures_figures_are_those_of_real_tokens(ring: Place) -> None:
    ring.loop.start()
    one(ring, prompt(20))
    state = ring.primary.state()
    assert 0 < state["floor_ms"] <= state["token_ms"]
    assert 0 < state["floor_percent"] <= 100
    assert all(span["compute_ms"] > 0 and 0 < span["busy"] <= 1 for span in state["spans"])


def test_before_anything_turns_the_picture_says_that_it_opens(ring: Place) -> None:
    state = ring.primary.state()
    assert (state["status"], state["spans"], state["pipeline"]) == ("opening", [], None)
    json.dumps(state, allow_nan=False)


def test_a_primary_without_a_pipeline_is_not_ready(ring: Place) -> None:
    assert ring.primary.ready() == (False, "The pipeline is being opened for the first time.")


def test_a_primary_is_ready_once_a_real_token_went_through_all_nodes(ring: Place) -> None:
    ring.loop.start()
    ring.until(lambda: ring.loop.ring is not None, "it opens")
    before = [ring.nodes[name].steps for name in ("w1", "w2")]
    ring.until(lambda: ring.primary.ready()[0], "a token came")
    assert [ring.nodes[name].steps for name in ("w1", "w2")] > before


def test_a_failover_is_counted_and_told(ring: Place) -> None:
    ring.loop.start()
    one(ring, prompt(20))
    ring.lose("w2")
    ring.until(lambda: "W2 was lost (dead)" in ring.loop.news, "it is told")
    assert ring.primary.state()["failovers"] == 1
