"""The field's text, and a run on it that is kept."""

from __future__ import annotations

import dataclasses

import pytest

from sharedllm.bets.rounds import STEP, Field, ran
from sharedllm.training.outer import Plan

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def field() -> Field:
    return Field(4)


def test_workers_that_are_alike_read_every_domain(field: Field) -> None:
    assert [set(shard.tokens) for shard in field.streams] == [{"code", "scripture", "drama", "verse"}] * 4


def test_workers_that_are_apart_read_one_domain_each() -> None:
    assert [set(shard.tokens) for shard in Field(4, "apart").streams] == [
        {"code"},
        {"scripture"},
        {"drama"},
        {"verse"},
    ]


def test_no_two_workers_share_their_text(field: Field) -> None:
    assert len({shard.sha256 for shard in field.streams}) == 4


def test_an_untrained_model_knows_no_more_than_the_size_of_the_vocabulary(field: Field) -> None:
    assert field.validation_nats(field.model(0).eval()) == pytest.approx(6.24, abs=0.1)


def test_a_run_that_is_found_again_is_the_run(field: Field) -> None:
    short = dataclasses.replace(STEP, tokens=4 * STEP.tokens_per_step)
    assert ran(field, short, Plan(4, 2), 0) == ran(field, short, Plan(4, 2), 0)
