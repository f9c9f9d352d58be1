"""What moved a token of a mixture: the same numbers as when it was said, and lines that add up."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from sharedllm.model import Tokenizer, Transformer
from sharedllm.wire import Codec
from tests.unit.nodes.primary.federated.choirs import NAMES, adapted, serve, serve_two_bases
from tests.unit.nodes.primary.talking import CHANCE, Told, one, prompt
from tests.unit.nodes.primary.threads import Place, place

ASKED = prompt(90)


@pytest.fixture(scope="module")
def turning(tiny: Transformer, tokenizer: Tokenizer) -> Iterator[Place]:
    with place(tiny, tokenizer, wire=Codec.FP32) as made:
        serve(made)
        made.loop.start()
        yield made


@pytest.fixture(scope="module")
def told(turning: Place) -> Told:
    return one(turning, ASKED, CHANCE)


@pytest.mark.parametrize("index", [0, 1, 7])
def test_a_tokens_responsibilities_are_explained_as_they_were_said(
    turning: Place, told: Told, index: int
) -> None:
    explained = turning.primary.explain(ASKED, told.tokens[index], told.tokens[:index])
    shares = [entry["share"] for entry in explained["responsibilities"]]
    assert shares == pytest.approx(told.said[index].responsibilities, abs=1e-15)
    assert explained["logprob"] == pytest.approx(told.said[index].logprob, abs=1e-12)


def test_the_lines_of_a_mixture_add_up_to_the_tokens_log_probability(turning: Place, told: Told) -> None:
    explained = turning.primary.explain(ASKED, told.tokens[3], told.tokens[:3])
    lines = [entry[line] for entry in explained["responsibilities"] for line in ("evidence", "prior")]
    assert math.fsum([*lines, explained["diversity"]]) == pytest.approx(explained["logprob"], abs=1e-12)


def test_weights_and_shares_sum_to_one(turning: Place, told: Told) -> None:
    explained = turning.primary.explain(ASKED, told.tokens[3], told.tokens[:3])
    for column in ("share", "weight"):
        assert math.fsum(e[column] for e in explained["responsibilities"]) == pytest.approx(1, abs=1e-12)


def test_every_member_shows_what_its_layers_did_under_its_own_gains(
    turning: Place, told: Told, tiny: Transformer
) -> None:
    token = told.tokens[0]
    explained = turning.primary.explain(ASKED, token)
    for seed, member in enumerate(explained["members"], 1):
        with torch.inference_mode():
            logits_V = adapted(tiny, seed)(torch.tensor([ASKED]))[0, -1].double()
        assert member["total"] == pytest.approx(float(logits_V[token] - logits_V.mean()), abs=1e-3)
        assert [layer["layer"] for c in member["contributions"] for layer in c["layers"]] == [0, 1, 2, 3]


def test_the_leading_specialists_machines_are_shown_first(turning: Place, told: Told) -> None:
    explained = turning.primary.explain(ASKED, told.tokens[0])
    leading = max(explained["responsibilities"], key=lambda entry: entry["share"])["name"]
    of_leading = next(member for member in explained["members"] if member["name"] == leading)
    assert explained["leading"] == leading
    assert explained["contributions"] == of_leading["contributions"]


def test_a_specialist_alone_is_explained_under_its_own_gains(turning: Place, tiny: Transformer) -> None:
    explained = turning.primary.explain(ASKED, 17, model=NAMES[1])
    with torch.inference_mode():
        logits_V = adapted(tiny, 2)(torch.tensor([ASKED]))[0, -1].double()
    assert explained["total"] == pytest.approx(float(logits_V[17] - logits_V.mean()), abs=1e-3)
    assert explained["responsibilities"] == []


def test_a_mixture_over_two_rings_is_explained_with_the_machines_of_both(
    ring: Place, tiny: Transformer
) -> None:
    serve_two_bases(ring, tiny)
    for turning in ring.loops:
        turning.start()
    told = one(ring, ASKED, CHANCE)
    explained = ring.primary.explain(ASKED, told.tokens[2], told.tokens[:2])
    shares = [entry["share"] for entry in explained["responsibilities"]]
    assert shares == pytest.approx(told.said[2].responsibilities, abs=1e-15)
    assert [member["name"] for member in explained["members"]] == ["code", "verse", "whole"]


def test_the_picture_names_the_other_pipelines(ring: Place, tiny: Transformer) -> None:
    serve_two_bases(ring, tiny)
    state = ring.primary.state()
    assert (state["model"], [other["model"] for other in state["others"]]) == ("mixture", ["whole"])


def test_a_primary_is_ready_when_all_its_pipelines_are(ring: Place, tiny: Transformer) -> None:
    serve_two_bases(ring, tiny)
    first, second = ring.loops
    first.start()
    ring.until(lambda: first.ring is not None, "the first opens")
    assert not ring.primary.ready()[0]
    second.start()
    ring.until(lambda: second.ring is not None, "the second opens")
    ring.until(lambda: ring.primary.ready()[0], "tokens came through both")
    ring.primary.close(0.0)
    assert [turning.is_alive() for turning in ring.loops] == [False, False]
