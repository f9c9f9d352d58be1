"""Whatever a body holds, it is understood or refused with a sentence; slow and endless ones are given up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from sharedllm.nodes.coordinator import app
from sharedllm.nodes.coordinator.offers import Promise, place, promised
from sharedllm.nodes.coordinator.registry import Node
from sharedllm.nodes.coordinator.schemas import (
    JoinRequest,
    NodeReport,
    PipelineReport,
    PipelineRequest,
    sentence,
)
from sharedllm.nodes.planner import Plan

FIELDS = sorted({*NodeReport.model_fields, *PipelineRequest.model_fields, *PipelineReport.model_fields})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=9), inner, max_size=6)
    ),
    max_leaves=20,
)


@given(body=JSON, kind=st.sampled_from([JoinRequest, NodeReport, PipelineRequest, PipelineReport]))
def test_any_body_is_understood_or_refused_with_one_line(body: Any, kind: type[BaseModel]) -> None:
    try:
        kind.model_validate(body)
    except ValidationError as error:
        said = sentence(error.errors())
        assert len(said) < 1_000
        assert said.isprintable()


@given(secret=st.text(min_size=129, max_size=200))
def test_a_sentence_never_repeats_what_was_given(secret: str) -> None:
    with pytest.raises(ValidationError) as refused:
        JoinRequest.model_validate({"secret": secret, "role": "worker", "name": "x"})
    assert secret not in sentence(refused.value.errors())


@settings(max_examples=40, deadline=None)
@given(
    memories=st.lists(st.integers(0, 2_500), min_size=1, max_size=4),
    spans=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.booleans()), max_size=6),
)
def test_no_plan_promises_more_memory_than_a_worker_has(
    memories: list[int], spans: list[tuple[int, int, bool]]
) -> None:
    def report(number: int, memory: int) -> NodeReport:
        return NodeReport(
            name=f"n{number}", role="worker", started=1.0, memory_bytes=memory, read_bytes_per_s=1e3
        )

    request = PipelineRequest.model_validate({"model": _model("ab" * 32)})
    held = [
        {"model": _model(("ab" if same else "cd") * 32), "spans": [[f"{node:032x}", start, start + 1]]}
        for node, start, same in spans
    ]
    nodes = [
        Node(f"{number:032x}", "worker", f"n{number}", 0.0, report=report(number, memory))
        for number, memory in enumerate(memories)
    ]
    promises = promised(held)
    placed = place(nodes, None, request, measured={}, promises=promises)
    for plan in [placed.found, *placed.spares.values()]:
        for span in plan.spans if isinstance(plan, Plan) else ():
            new = Promise("ab" * 32, frozenset(range(span.start, span.stop)), 90, 10)
            assert _needed([*promises.get(span.node, []), new]) <= memories[int(span.node, 16)]


def _needed(promises: list[Promise]) -> int:
    layers = {(promise.model, layer) for promise in promises for layer in promise.layers}
    return 90 * len(layers) + 10 * sum(len(promise.layers) for promise in promises)


def _model(hash: str) -> dict[str, Any]:
    sizes = {
        "layers": 10,
        "layer_bytes": 90,
        "cache_bytes_per_layer": 10,
        "width": 64,
        "activation_bytes": 128,
    }
    return {"name": "tiny", "hash": hash, **sizes}


def answered(messages: Callable[[], Any]) -> tuple[int, str]:
    """Status and sentence that answer a body which arrives as ``messages`` gives it."""
    sent: list[dict[str, Any]] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the body was let through")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [], "method": "POST", "path": "/"}
    asyncio.run(app._Bounded(inner)(scope, messages, send))
    return sent[0]["status"], json.loads(sent[1]["body"])["error"]


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_BODY_S", 0.01)

    async def never() -> Any:
        await asyncio.Event().wait()

    status, said = answered(never)
    assert (status, "did not arrive within" in said) == (408, True)


def test_an_endless_body_is_read_no_further_than_a_megabyte() -> None:
    pieces = 0

    async def more() -> Any:
        nonlocal pieces
        pieces += 1
        return {"type": "http.request", "body": b" " * 16_384, "more_body": True}

    status, _ = answered(more)
    assert (status, pieces) == (413, 65)
