"""A real federation serves a mixture of two adapters and a whole model, and keeps serving when nodes die."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from sharedllm import store
from sharedllm.adapters import Adapter, library
from sharedllm.attribution.receipts import verify
from sharedllm.model import Tokenizer
from sharedllm.nodes.coordinator import CoordinatorClient
from sharedllm.nodes.identity import Identity
from sharedllm.nodes.local import Federation
from sharedllm.nodes.specialists import listing
from tests.nodes.federated.toys import NAMES, delta, mixed, models, publish
from tests.nodes.harness import PROMPT, within

pytestmark = pytest.mark.slow

TOKENS = 60


@dataclass
class Said:
    """What a stream said of each token, and at its end."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    shares: list[dict[str, float]] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHAREDLLM_HOME", str(tmp_path_factory.mktemp("home")))
        publish(tmp_path_factory.mktemp("made"))
        state: Path = tmp_path_factory.mktemp("federation")
        ports = {"port": 0, "coordinator_port": 0}
        with Federation(
            state, model="toy", specialists=NAMES, workers=2, wire="fp32", threads=1, **ports
        ) as started:
            started.await_pipeline(120)
            yield started


@pytest.fixture
def whole(federation: Federation) -> Federation:
    """The federation with every process alive and every pipeline open."""
    for process in federation.processes:
        if not process.running:
            process.start()
            process.await_ready(60)
    federation.await_pipeline(90)
    within(90, lambda: all(len(one["spans"]) == 2 for one in pictures(federation)))
    return federation


def pictures(federation: Federation) -> list[dict[str, Any]]:
    """The state of every pipeline."""
    state: dict[str, Any] = httpx.get(f"{federation.page_url}/v1/sharedllm/state").json()
    return [state, *state["others"]]


def tell(
    federation: Federation, meanwhile: Callable[[], object] | None = None, model: str = "mixture", **more: Any
) -> Said:
    """Stream a continuation; ``meanwhile`` is done after a third of it."""
    import json

    body = {"model": model, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "stream": True, **more}
    said = Said()
    with httpx.stream("POST", f"{federation.api_url}/completions", json=body, timeout=120) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            assert "error" not in event, event
            ours = event.get("sharedllm", {})
            said.text += event["choices"][0]["text"]
            if ours.get("token", -1) >= 0:
                said.tokens.append(ours["token"])
                said.logprobs.append(ours["logprob"])
                said.shares.append(ours.get("responsibilities", {}))
                if meanwhile is not None and len(said.tokens) == TOKENS // 3:
                    meanwhile()
            elif "receipt" in ours:
                said.end = ours
    return said


def prompt_tokens() -> list[int]:
    manifest = store.resolve("toy")
    blob = store.Blobs().path(manifest.tokenizer_sha256)
    return Tokenizer.from_bytes(blob.read_bytes()).prompt(PROMPT)


def test_the_mixture_through_the_network_is_the_mixture_in_one_piece(whole: Federation) -> None:
    said = tell(whole)
    tokens, shares = mixed(models(), prompt_tokens(), len(said.tokens))
    assert said.tokens == tokens
    heard = torch.tensor([[share[name] for name in NAMES] for share in said.shares], dtype=torch.float64)
    torch.testing.assert_close(heard, shares, atol=1e-4, rtol=0)


def test_responsibilities_sum_to_one_and_name_every_specialist(whole: Federation) -> None:
    for share in tell(whole).shares:
        assert tuple(share) == NAMES
        assert abs(sum(share.values()) - 1) < 1e-9


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1, "seed": 7}], ids=["greedy", "sampled"])
def test_a_worker_that_dies_changes_neither_text_nor_responsibilities(
    whole: Federation, sampling: dict[str, Any]
) -> None:
    undisturbed = tell(whole, **sampling)
    told = tell(whole, whole.workers[1].kill, **sampling)
    assert (told.text, told.tokens) == (undisturbed.text, undisturbed.tokens)
    assert (told.shares, told.logprobs) == (undisturbed.shares, undisturbed.logprobs)
    assert told.end["failovers"] >= 1


def test_every_specialist_and_the_base_speak_by_their_names(whole: Federation) -> None:
    texts = {name: tell(whole, model=name).text for name in (*NAMES, "toy")}
    assert len(set(texts.values())) == len(texts)


def test_an_adapter_that_is_fitted_now_is_served_now(whole: Federation) -> None:
    base = store.load("toy")
    library.save("me", Adapter("norm", base.manifest.weights_sha256, delta(base.model, 5)), {})
    assert tell(whole, model="me").text not in {tell(whole, model="toy").text, ""}


def test_a_receipt_proves_offline_what_was_said(whole: Federation) -> None:
    said = tell(whole)
    data = httpx.get(f"{whole.api_url}/sharedllm/receipts/{said.end['receipt']}", timeout=30).content
    log = httpx.get(f"{whole.api_url}/sharedllm/log", timeout=30).json()
    verified = verify(data, log_key=log["key"], prompt=prompt_tokens())
    assert [token.entry.token for token in verified.answer.tokens] == said.tokens
    assert verified.answer.head.specialists == NAMES


def test_a_token_is_explained_with_the_responsibilities_that_it_was_said_with(whole: Federation) -> None:
    said = tell(whole)
    body = {"prompt": prompt_tokens(), "tokens": said.tokens, "index": 9}
    explained = httpx.post(f"{whole.api_url}/sharedllm/explain", json=body, timeout=60).json()
    shares = {entry["name"]: entry["share"] for entry in explained["responsibilities"]}
    assert shares == pytest.approx(said.shares[9], abs=1e-15)
    assert [member["name"] for member in explained["members"]] == list(NAMES)


def test_the_coordinator_knows_a_pipeline_for_each_whole_model(whole: Federation) -> None:
    assert sorted(pipeline["model"] for pipeline in whole.status()["pipelines"]) == sorted(
        ["toy", "toy-whole"]
    )


def test_other_nodes_can_fetch_what_a_primary_serves(whole: Federation) -> None:
    client = CoordinatorClient(Identity.load(whole.operator), whole.coordinator_url)
    with contextlib.closing(client):

        def whole_names() -> set[str]:
            return {entry["name"] for entry in listing(client) if not entry["missing"]}

        within(60, lambda: "toy-whole" in whole_names())
        assert {entry["name"] for entry in listing(client)} >= set(NAMES)


def test_status_names_the_key_that_receipts_are_verified_with(whole: Federation) -> None:
    log = httpx.get(f"{whole.api_url}/sharedllm/log", timeout=30).json()
    (primary,) = [node for node in whole.status()["nodes"] if node["role"] == "primary"]
    assert primary["audit"]["key"] == log["node_key"]
