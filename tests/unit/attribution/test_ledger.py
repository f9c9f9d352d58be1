"""One entry, written out and tampered with in every way that the property tests do not draw."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sharedllm.attribution import UNIT_NATS, Entry, entries, evidence, verify
from sharedllm.combiner import Uniform, mixture
from sharedllm.errors import BadLedger

NAMES = ("drama", "scripture")


@pytest.fixture
def entry() -> Entry:
    a_NT = torch.tensor([[-1.0], [-3.0]], dtype=torch.float64)
    logw_NT = Uniform(2).run(a_NT)
    return entries(a_NT, logw_NT, mixture(a_NT, logw_NT), torch.tensor([7]), NAMES)[0]


def test_an_honest_entry_verifies(entry):
    verify(entry)


def test_amounts_are_in_units_of_two_to_the_minus_forty_nat(entry):
    assert entry.logp == (-(2**40), -3 * 2**40)
    assert entry.joint * UNIT_NATS == pytest.approx(math.log((math.exp(-1) + math.exp(-3)) / 2), abs=1e-12)


def test_a_specialist_named_twice_is_refused(entry):
    with pytest.raises(BadLedger, match="named once"):
        verify(replace(entry, specialists=("drama", "drama")))


def test_a_missing_line_is_refused(entry):
    with pytest.raises(BadLedger, match="one line of each kind"):
        verify(replace(entry, evidence=entry.evidence[:1]))


@pytest.mark.parametrize("amount", [1.0, True, "1", None])
def test_an_amount_that_is_no_integer_is_refused(entry, amount):
    with pytest.raises(BadLedger):
        verify(replace(entry, evidence=(amount, entry.evidence[1])))


def test_a_changed_log_probability_is_refused_though_the_lines_still_add_up(entry):
    with pytest.raises(BadLedger, match="was changed"):
        verify(replace(entry, logp=(entry.logp[0] + 2**20, entry.logp[1])))


def test_weights_that_do_not_sum_to_one_are_refused(entry):
    with pytest.raises(BadLedger, match="do not sum to one"):
        verify(replace(entry, logw=(entry.logw[0], None)))


def test_an_entry_in_which_nothing_is_possible_is_refused(entry):
    with pytest.raises(BadLedger, match="no joint"):
        verify(replace(entry, logp=(None, None)))


def test_a_joint_that_was_not_served_by_these_lines_is_refused():
    a_NT = torch.full((2, 1), -1.0, dtype=torch.float64)
    with pytest.raises(BadLedger, match="joint is"):
        entries(a_NT, Uniform(2).run(a_NT), torch.tensor([-1.001]), torch.tensor([7]), NAMES)


def test_names_that_do_not_fit_are_refused():
    a_NT = torch.full((2, 1), -1.0)
    with pytest.raises(BadLedger, match="1 names"):
        entries(a_NT, Uniform(2).run(a_NT), a_NT[0], torch.tensor([7]), ("drama",))


def test_an_amount_beyond_the_range_is_refused():
    a_NT = torch.full((1, 1), -3e6, dtype=torch.float64)
    with pytest.raises(BadLedger, match="larger"):
        entries(a_NT, torch.zeros(1, 1), a_NT[0], torch.tensor([7]), ("drama",))


def test_evidence_is_upcast_before_the_softmax():
    logits_NTV = torch.randn(2, 5, 4096)
    tokens_T = torch.randint(4096, (5,))
    exact = logits_NTV.double().log_softmax(-1).gather(2, tokens_T[None, :, None].expand(2, -1, 1)).squeeze(2)
    torch.testing.assert_close(evidence(logits_NTV, tokens_T), exact, atol=1e-13, rtol=0)


def test_evidence_in_pieces_is_the_same(monkeypatch):
    logits_NTV, tokens_T = torch.randn(2, 5, 64), torch.randint(64, (5,))
    whole = evidence(logits_NTV, tokens_T)
    monkeypatch.setattr("sharedllm.attribution.ledger._CHUNK_ELEMENTS", 1)
    assert torch.equal(evidence(logits_NTV, tokens_T), whole)


def test_logits_that_do_not_fit_their_tokens_are_refused():
    with pytest.raises(BadLedger, match="do not fit"):
        evidence(torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.long))


def test_an_amount_that_no_model_gives_is_refused_before_rounding_is_allowed_for(entry):
    with pytest.raises(BadLedger, match="larger than"):
        verify(replace(entry, logp=(2**89, entry.logp[1])))
