"""Weights on a stream that switches its best specialist, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sharedllm.combiner import (
    Bayes,
    FixedShare,
    Static,
    Uniform,
    best_switching,
    fixed_share_price,
    fixed_share_slack,
    mixture,
    sequence_slack,
)
from sharedllm.errors import BadMixture

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def switching_stream() -> Tensor:
    """The stream of ``ml.md`` §2.2: 4 specialists, 2,000 tokens, another one best in each block of 500.

    Its noise is not published; the means below (2.018 for the best, 3.0 for the rest) follow from its
    figures.
    """
    generator = torch.Generator().manual_seed(0)
    noise_NGT = 0.25 * torch.randn(4, 4, 500, generator=generator, dtype=torch.float64)
    a_NT = (-3.0 + noise_NGT - noise_NGT.mean(2, keepdim=True)).reshape(4, 2000)
    for block in range(4):
        a_NT[block, 500 * block : 500 * (block + 1)] += 3.0 - 2.018
    return a_NT


def per_token(a_NT: Tensor, logw_NT: Tensor) -> float:
    return -float(mixture(a_NT, logw_NT).mean())


def test_uniform_beats_the_best_fixed_specialist_where_the_best_one_switches(switching_stream):
    assert -float(switching_stream.mean(1).max()) == pytest.approx(2.756, abs=0.02)
    assert per_token(switching_stream, Uniform(4).run(switching_stream)) == pytest.approx(2.625, abs=0.02)


def test_bayes_locks_in_where_the_best_one_switches(switching_stream):
    assert per_token(switching_stream, Bayes(4).run(switching_stream)) == pytest.approx(2.756, abs=0.02)


def test_fixed_share_follows_the_switches_within_its_bound(switching_stream):
    alpha = 3 / 1999
    logw_NT = FixedShare(4, alpha).run(switching_stream)
    assert per_token(switching_stream, logw_NT) == pytest.approx(2.032, abs=0.01)
    assert float(best_switching(switching_stream, 3)[-1]) / 2000 == pytest.approx(2.018, abs=0.001)
    assert fixed_share_price(4, 2000, alpha, 3) / 2000 == pytest.approx(0.0136, abs=0.0002)
    assert (fixed_share_slack(switching_stream, logw_NT, alpha, most=5) >= 0).all()


def test_uniform_loses_far_more_than_ln_n_where_one_specialist_is_always_best():
    a_NT = torch.full((4, 400), -3.0, dtype=torch.float64)
    a_NT[0] = -2.0
    bayes = sequence_slack(a_NT, Bayes(4).run(a_NT))
    assert bayes.total_nats - min(bayes.specialists_nats) == pytest.approx(math.log(4), abs=1e-9)
    assert per_token(a_NT, Uniform(4).run(a_NT)) * 400 - min(bayes.specialists_nats) > 100


def test_the_mixture_can_be_worse_than_the_best_specialist():
    a_NT = torch.tensor([[-1.0], [-5.0]], dtype=torch.float64)
    assert float(mixture(a_NT, Uniform(2).logw_N)) < -1.0


def test_the_price_at_the_tuned_share_is_the_formula_of_herbster_and_warmuth():
    n, t, k = 5, 101, 4
    p = k / (t - 1)
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    expected = math.log(n) + k * math.log(n - 1) + (t - 1) * entropy
    assert fixed_share_price(n, t, p, k) == pytest.approx(expected, abs=1e-12)


def test_a_token_all_call_impossible_changes_no_posterior():
    a_NT = torch.tensor([[-1.0, -math.inf, -1.0], [-2.0, -math.inf, -1.0]])
    logw_NT = Bayes(2).run(a_NT)
    assert torch.equal(logw_NT[:, 1], logw_NT[:, 2])


def test_a_specialist_ruled_out_once_never_returns_to_bayes_but_does_to_fixed_share():
    a_NT = torch.tensor([[-1.0, -1.0], [-math.inf, -1.0]])
    assert Bayes(2).run(a_NT)[1, 1] == -math.inf
    assert float(FixedShare(2, 0.1).run(a_NT)[1, 1].exp()) == pytest.approx(0.1)


def test_weights_carried_along_a_prompt_start_the_next_text_where_it_ended():
    a_NT = torch.randn(3, 8, dtype=torch.float64) - 3
    carried = FixedShare(3, 0.1)
    for a_N in a_NT[:, :5].unbind(1):
        carried.update(a_N)
    torch.testing.assert_close(carried.run(a_NT[:, 5:]), FixedShare(3, 0.1).run(a_NT)[:, 5:])


def test_static_weights_find_the_proportions_of_disjoint_specialists():
    a_NT = torch.tensor([[0.0, 0.0, 0.0, -math.inf], [-math.inf] * 3 + [0.0]])
    assert Static.fit(a_NT).logw_N.exp().tolist() == pytest.approx([0.75, 0.25], abs=1e-6)


def test_a_text_without_evidence_leaves_static_weights_uniform():
    assert Static.fit(torch.full((2, 3), -math.inf)).logw_N.exp().tolist() == pytest.approx([0.5, 0.5])


def test_the_largest_share_is_uniform_for_ever():
    logw_NT = FixedShare(3, 2 / 3).run(torch.randn(3, 6))
    torch.testing.assert_close(logw_NT, Uniform(3).run(torch.zeros(3, 6)))


@pytest.mark.parametrize("alpha", [-0.1, 0.7, math.nan])
def test_a_share_outside_its_range_is_refused(alpha):
    with pytest.raises(BadMixture, match="alpha"):
        FixedShare(3, alpha)


def test_a_prior_for_another_number_of_specialists_is_refused():
    with pytest.raises(BadMixture, match="prior"):
        Bayes(3, Uniform(2).logw_N)


def test_no_specialist_at_all_is_refused():
    with pytest.raises(BadMixture, match="at least one"):
        Uniform(0)


def test_weights_refuse_a_text_of_more_specialists():
    with pytest.raises(BadMixture, match="for 2 specialists"):
        Bayes(2).run(torch.zeros(3, 4))
