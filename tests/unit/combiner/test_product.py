"""What multiplying specialists does: the safe kinds and the unsafe ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sharedllm.combiner import geometric_mean, power_mean, product, raw_sum
from sharedllm.errors import BadMixture


@pytest.fixture(scope="module")
def specialists() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(3, 400, 200, generator=generator)).log_softmax(-1)


def test_the_raw_sum_is_not_a_distribution(specialists):
    assert raw_sum(specialists).logsumexp(-1).max() < -1


def test_the_product_can_be_worse_than_the_worst_specialist(specialists):
    assert (product(specialists)[:, 0] < specialists[:, :, 0].amin(0)).any()


def test_the_product_is_a_distribution(specialists):
    assert product(specialists).logsumexp(-1).abs().max() < 1e-5


def test_the_geometric_mean_of_one_half_and_one_eighth_is_a_quarter_before_normalising():
    logp_NTV = torch.tensor([[[0.5, 0.5]], [[0.125, 0.875]]], dtype=torch.float64).log()
    unnormalised = torch.tensor([0.25, math.sqrt(0.5 * 0.875)], dtype=torch.float64)
    torch.testing.assert_close(geometric_mean(logp_NTV)[0].exp(), unnormalised / unnormalised.sum())


def test_a_veto_by_one_specialist_is_final_in_the_geometric_mean_but_not_at_one_half():
    logp_NTV = torch.tensor([[[0.5, 0.5]], [[1.0, 0.0]]]).log()
    assert geometric_mean(logp_NTV)[0, 1] == -math.inf
    assert power_mean(logp_NTV, 0.5)[0, 1] > -math.inf


@pytest.mark.parametrize("combine", [product, geometric_mean, lambda x: power_mean(x, 0.0)])
def test_specialists_that_rule_out_everything_together_are_refused(combine):
    with pytest.raises(BadMixture, match="veto"):
        combine(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).log())


@pytest.mark.parametrize("r", [-0.5, 1.5, math.nan])
def test_power_means_outside_the_safe_range_are_refused(r):
    with pytest.raises(BadMixture, match="between 0 and 1"):
        power_mean(torch.zeros(2, 1, 1), r)
