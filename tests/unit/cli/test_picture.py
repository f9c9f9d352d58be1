"""The status picture says with words and numbers everything that it says with colour."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from sharedllm.cli.network.picture import picture

NODE: dict[str, Any] = {
    "id": "3f" * 16,
    "short": "3f3f3f3f",
    "name": "attic",
    "role": "worker",
    "state": "up",
    "sentence": "",
    "lease_left_s": 7.25,
    "spans": [
        {"pipeline": "p", "model": "m", "start": 0, "stop": 15, "s_per_layer": 0.002, "measured": True}
    ],
    "memory_bytes": 4_000_000_000,
    "weights_bytes": 270_000_000,
    "kv_bytes": 30_000_000,
    "traffic": {"in_bytes": 1_500_000, "out_bytes": 900},
}
PIPELINE: dict[str, Any] = {
    "model": "smollm2-135m",
    "primary_name": "desk",
    "spans": [{"name": "attic", "start": 0, "stop": 15, "compute_ms": 30.5, "hop_ms": 0.25}],
    "predicted_token_s": 0.1,
    "floor_s": 0.08,
    "token_s": 0.1,
    "tokens_per_s": 10.0,
    "floor_percent": 80.0,
    "left_out": [["cellar", "would make each token 3.1 ms slower"]],
    "note": "",
}


def drawn(
    *nodes: dict[str, Any], pipelines: tuple[dict[str, Any], ...] = (), revoked: tuple[str, ...] = ()
) -> str:
    written = io.StringIO()
    status = {"nodes": list(nodes), "pipelines": list(pipelines), "revoked": list(revoked)}
    Console(file=written, width=140, color_system=None).print(picture(status))
    return written.getvalue()


@pytest.mark.parametrize(
    "fact",
    [
        "attic ",
        "worker 3f3f3f3f",
        "up ",
        "7.2 s left",
        "0–14",
        "2.00 ms ",
        "300 MB",
        "of 4.00 GB",
        "in 1.50 MB",
        "out 900 B",
    ],
)
def test_a_node_shows(fact: str) -> None:
    assert fact in drawn(NODE)


def test_an_estimated_speed_is_called_one() -> None:
    span = {**NODE["spans"][0], "measured": False}
    assert "≈ 2.00 ms" in drawn({**NODE, "spans": [span]})


def test_a_node_that_is_gone_says_so_in_words() -> None:
    gone = {
        **NODE,
        "state": "gone",
        "sentence": "has not been heard of since its lease ran out",
        "lease_left_s": 0,
    }
    assert "attic: has not been heard of since its lease ran out" in drawn(gone)


def test_a_node_that_never_reported_is_drawn() -> None:
    bare = {key: NODE[key] for key in ("id", "short", "name", "role", "sentence", "lease_left_s")}
    assert "joined" in drawn({**bare, "state": "joined", "spans": []})


@pytest.mark.parametrize(
    "fact",
    [
        "smollm2-135m for desk: 10.0 tokens/s, 100.0 ms a token, 80 % of the floor's speed (80.0 ms)",
        "0.25 ms",
        "30.50 ms",
        "cellar: left out: would make each token 3.1 ms slower",
    ],
)
def test_a_pipeline_shows(fact: str) -> None:
    assert fact in drawn(NODE, pipelines=(PIPELINE,))


def test_an_unmeasured_pipeline_shows_what_is_predicted() -> None:
    fresh = {**PIPELINE, "token_s": None, "tokens_per_s": None, "floor_percent": None}
    assert "100.0 ms a token predicted, none measured yet" in drawn(NODE, pipelines=(fresh,))


def test_a_narrow_terminal_cuts_nothing() -> None:
    written = io.StringIO()
    status = {"nodes": [NODE], "pipelines": [PIPELINE], "revoked": []}
    Console(file=written, width=80, color_system=None).print(picture(status))
    assert "…" not in written.getvalue()


def test_no_pipeline_is_said() -> None:
    assert "No pipeline is in use." in drawn(NODE)


def test_the_revoked_are_named() -> None:
    assert "revoked: abababab" in drawn(NODE, revoked=("ab" * 16,))


def test_a_name_is_no_markup() -> None:
    assert "[red]attic" in drawn({**NODE, "name": "[red]attic"})


def test_a_primarys_log_is_told_with_its_key_and_what_is_missing_from_it() -> None:
    log = {"key": "ab" * 32, "size": 1234, "unaudited": 0}
    told = drawn(NODE | {"role": "primary", "audit": log})
    assert f"attic: audit log of 1,234 entries; its key is {'ab' * 32}" in told
    assert "; 2 answers are not in it;" in drawn(NODE | {"audit": log | {"unaudited": 2}})
