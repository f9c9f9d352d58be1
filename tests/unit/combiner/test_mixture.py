"""The mixture on values that are known by hand, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from sharedllm.combiner import Static, Uniform, blended, mixture, token_log_probabilities, token_slack
from sharedllm.errors import BadMixture


def test_the_mixture_of_one_half_and_one_quarter_is_three_eighths():
    a_NT = torch.tensor([[0.5], [0.25]], dtype=torch.float64).log()
    assert float(mixture(a_NT, Uniform(2).logw_N).exp()) == pytest.approx(0.375, abs=1e-15)


def test_one_specialist_is_its_own_mixture_bit_for_bit():
    logp_NTV = torch.randn(1, 5, 11).log_softmax(-1)
    assert torch.equal(mixture(logp_NTV, Uniform(1).logw_N), logp_NTV[0])


def test_a_token_all_call_impossible_stays_impossible_and_is_not_nan():
    assert mixture(torch.full((3, 1), -math.inf), Uniform(3).logw_N).tolist() == [-math.inf]


def test_a_specialist_of_weight_zero_is_as_if_absent():
    a_NT = torch.tensor([[-1.0, -2.0], [-0.1, -math.inf]], dtype=torch.float64)
    assert torch.equal(mixture(a_NT, torch.tensor([0.0, -math.inf])), a_NT[0])


def test_probabilities_of_e_to_minus_ten_thousand_keep_their_difference():
    a_NT = torch.tensor([[-1e4], [-1e4]], dtype=torch.float64)
    assert float(mixture(a_NT, Uniform(2).logw_N)) == -1e4


def test_the_mixture_keeps_the_precision_it_was_given():
    assert mixture(torch.zeros(2, 3, dtype=torch.float32), Uniform(2).logw_N).dtype == torch.float32


def test_weights_that_do_not_sum_to_one_are_refused():
    with pytest.raises(BadMixture, match="sum to one"):
        mixture(torch.zeros(2, 3), torch.tensor([0.0, 0.0]))


def test_weights_for_another_number_of_specialists_are_refused():
    with pytest.raises(BadMixture, match="do not match"):
        mixture(torch.zeros(2, 3), Uniform(3).logw_N)


def test_nan_log_probabilities_name_their_specialist():
    a_NT = torch.zeros(3, 4)
    a_NT[2, 1] = math.nan
    with pytest.raises(BadMixture, match="Specialist 2"):
        Uniform(3).run(a_NT)


def test_the_log_probability_picked_is_the_one_of_the_token_that_came():
    logp_NTV = torch.arange(24.0).reshape(2, 3, 4)
    assert token_log_probabilities(logp_NTV, torch.tensor([3, 0, 1])).tolist() == [[3, 4, 9], [15, 16, 21]]


def test_slack_of_a_large_vocabulary_is_the_same_in_pieces(monkeypatch):
    logp_NTV = torch.randn(3, 9, 50).log_softmax(-1)
    tokens_T = torch.randint(50, (9,))
    whole = token_slack(logp_NTV, Uniform(3).logw_N, tokens_T).minimum()
    monkeypatch.setattr("sharedllm.combiner.bounds._CHUNK_ELEMENTS", 1)
    assert token_slack(logp_NTV, Uniform(3).logw_N, tokens_T).minimum() == whole


def test_a_vocabulary_without_its_tokens_is_refused():
    with pytest.raises(BadMixture, match="tokens_T"):
        token_slack(torch.zeros(2, 3, 4), Uniform(2).logw_N)


def test_equal_specialists_leave_static_weights_uniform():
    assert torch.equal(Static.fit(torch.full((3, 5), -2.0)).logw_N, Uniform(3).logw_N)


def test_blended_logits_of_weights_that_do_not_fit_are_refused():
    with pytest.raises(BadMixture, match="2 specialists' logits"):
        blended([torch.zeros(3), torch.zeros(3)], Uniform(3).logw_N)
    with pytest.raises(BadMixture, match="sum to one"):
        blended([torch.zeros(3), torch.zeros(3)], torch.zeros(2))


def test_blending_leaves_logits_in_double_precision_as_they_were():
    logits = [torch.randn(7, dtype=torch.float64) for _ in range(2)]
    before = [logits_V.clone() for logits_V in logits]
    blended(logits, Uniform(2).logw_N)
    assert all(torch.equal(*pair) for pair in zip(logits, before, strict=True))


def test_whoever_weighs_nothing_may_say_nan_and_anybody_else_may_not():
    logits = [torch.zeros(4), torch.full((4,), math.nan)]
    silent = blended(logits, torch.tensor([0.0, -math.inf]))
    assert silent.m_V.tolist() == pytest.approx([-math.log(4)] * 4, abs=1e-15)
    assert bool(blended(logits, Uniform(2).logw_N).m_V.isnan().all())


def test_what_is_blended_does_not_depend_on_how_logits_lie_in_memory():
    logits_NV = torch.randn(3, 1001)
    strided_NV = torch.empty(1001, 3).T.copy_(logits_NV)
    a, b = (blended(rows.unbind(), Uniform(3).logw_N) for rows in (logits_NV, strided_NV))
    assert torch.equal(a.m_V, b.m_V)
    assert torch.equal(a.z_N, b.z_N)
