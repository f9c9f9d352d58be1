"""All rules of the room see the same token."""

from __future__ import annotations

import torch

from sharedllm.combiner import by_rule, geometric_mean, product


def example() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logp_NTV = torch.randn(3, 5, 11, dtype=torch.float64, generator=generator).log_softmax(-1)
    return logp_NTV, torch.tensor([0, 3, 10, 7, 7])


def test_every_rule_is_that_of_its_own_function() -> None:
    logp_NTV, tokens_T = example()
    rules = by_rule(logp_NTV, tokens_T)
    for name, rule in (("product", product), ("geometric", geometric_mean)):
        expected_T = rule(logp_NTV)[torch.arange(5), tokens_T]
        torch.testing.assert_close(rules[name], expected_T)


def test_mean_mixture_and_sum_stand_in_their_known_order() -> None:
    logp_NTV, tokens_T = example()
    rules = by_rule(logp_NTV, tokens_T)
    assert (rules["mixture"] >= rules["mean"]).all()
    assert (rules["sum"] <= rules["mean"]).all()
