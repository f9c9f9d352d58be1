"""The gate bears what no majority rule bears: more liars than honest workers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sharedllm.errors import BadAggregate
from sharedllm.robust import ATTACKS, aggregate, attack, gated

TARGET_P = torch.linspace(-1, 1, 50, dtype=torch.float64)


def loss(update_P: Tensor) -> float:
    """The held-out loss of a bowl whose bottom is one step of ``TARGET_P`` away."""
    return float((update_P - TARGET_P).square().sum())


def honest(count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.5 * TARGET_P + 0.05 * torch.randn(count, 50, generator=generator, dtype=torch.float64)


def with_liars(name: str, liars: int = 5) -> Tensor:
    rule = lambda x_KP: gated(x_KP, loss).vector_P  # noqa: E731
    lies_FP = attack(name, honest(), liars, generator=torch.Generator().manual_seed(1), rule=rule)
    return torch.cat([honest(), lies_FP])


@pytest.mark.parametrize("name", ATTACKS)
def test_five_liars_of_eight_do_not_stop_the_gate_from_lowering_the_loss(name: str) -> None:
    assert loss(gated(with_liars(name), loss).vector_P) < 0.7 * loss(torch.zeros(50))


@pytest.mark.parametrize("rule", ["median", "geometric_median", "nnm+median", "multi_krum"])
def test_the_same_majority_leads_every_other_rule_uphill(rule: str) -> None:
    sent_KP = with_liars("scale") * torch.tensor([1.0] * 3 + [-1.0] * 5)[:, None]
    most = 2 if rule == "multi_krum" else 3
    assert loss(aggregate(sent_KP, rule, most)) > loss(torch.zeros(50))
    assert loss(gated(sent_KP, loss).vector_P) < loss(torch.zeros(50))


def test_it_says_who_passed_and_what_each_gained() -> None:
    found = gated(with_liars("sign-flip"), loss)
    assert found.passed == (True,) * 3 + (False,) * 5
    assert all((gain > 0) == passed for gain, passed in zip(found.gains_nats, found.passed, strict=True))


def test_what_is_not_finite_gains_less_than_anything() -> None:
    assert gated(with_liars("nan"), loss).gains_nats[3:] == (-math.inf,) * 5


def test_when_nobody_helps_nothing_is_done() -> None:
    found = gated(-honest(), loss)
    assert not any(found.passed)
    assert not found.vector_P.any()


def test_an_update_longer_than_the_others_is_cut_to_their_length() -> None:
    sent_KP = honest() * torch.tensor([1.0, 1.0, 1.9], dtype=torch.float64)[:, None]
    assert float(gated(sent_KP, loss).vector_P.norm()) <= float(honest().norm(dim=1).max()) * 1.01


def test_what_helps_by_less_than_the_margin_does_not_pass() -> None:
    sent_KP = torch.cat([honest(2), 1e-3 * honest(1)])
    assert gated(sent_KP, loss, margin_nats=0.1).passed == (True, True, False)


def test_a_rule_that_needs_more_than_passed_gives_way_to_the_mean() -> None:
    sent_KP = with_liars("sign-flip", 8)
    assert torch.equal(gated(sent_KP, loss, rule="multi_krum", f=2).vector_P, gated(sent_KP, loss).vector_P)


def test_a_model_that_is_broken_already_is_refused() -> None:
    with pytest.raises(BadAggregate, match="needs a model that works"):
        gated(honest(), lambda update_P: math.nan)


def test_vectors_that_are_no_table_are_refused() -> None:
    with pytest.raises(BadAggregate, match="no table"):
        gated(honest()[0], loss)
