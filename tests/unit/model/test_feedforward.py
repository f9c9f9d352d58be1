"""Grouping tokens by expert computes what a plain loop over tokens would."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sharedllm.model import Transformer
from sharedllm.model.feedforward import MixtureOfExperts


def plain_loop(moe: MixtureOfExperts, h_MD: Tensor) -> Tensor:
    """The definition, token by token (2101.03961 §2.1)."""
    out = []
    for h_D in h_MD:
        p_E = torch.softmax(moe.router.weight @ h_D, dim=0)
        e = int(p_E.argmax())
        out.append(p_E[e] * (moe.down_EDF[e] @ (F.silu(moe.gate_EFD[e] @ h_D) * (moe.up_EFD[e] @ h_D))))
    return torch.stack(out)


@pytest.fixture
def layer(moe: Transformer) -> MixtureOfExperts:
    found = moe.blocks[0].feedforward
    assert isinstance(found, MixtureOfExperts)
    return found


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 16)])
@pytest.mark.parametrize("gradients", [True, False])
def test_grouped_tokens_equal_a_loop_over_tokens(
    layer: MixtureOfExperts, shape: tuple[int, int], gradients: bool
) -> None:
    h_BTD = torch.randn(*shape, 32, generator=torch.Generator().manual_seed(1))
    with torch.set_grad_enabled(gradients):
        out = layer(h_BTD)
    torch.testing.assert_close(
        out.flatten(0, 1), plain_loop(layer, h_BTD.flatten(0, 1)), atol=1e-5, rtol=1e-4
    )


def test_gradients_of_grouped_tokens_equal_those_of_the_loop(layer: MixtureOfExperts) -> None:
    h_MD = torch.randn(40, 32, generator=torch.Generator().manual_seed(1))
    names = [name for name, _ in layer.named_parameters()]
    grouped = torch.autograd.grad(layer(h_MD[None]).square().sum(), list(layer.parameters()))
    looped = torch.autograd.grad(plain_loop(layer, h_MD).square().sum(), list(layer.parameters()))
    for name, ours, theirs in zip(names, grouped, looped, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4, msg=name)


def test_a_token_is_not_changed_by_its_neighbours(layer: MixtureOfExperts) -> None:
    h_BTD = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer(h_BTD)[1, 4], layer(h_BTD[1:, 4:5])[0, 0], atol=1e-6, rtol=1e-5)


def test_the_balance_loss_is_one_when_even_and_the_number_of_experts_when_all_go_to_one(
    moe: Transformer,
) -> None:
    layer = MixtureOfExperts(dataclasses.replace(moe.config, width=4, experts=4))
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        layer.router.weight.copy_(torch.eye(4) * 50)
        layer(torch.eye(4)[None])
        even = layer.balance
        layer(torch.eye(4)[:1].expand(4, 4)[None])
    assert even is not None
    assert layer.balance is not None
    assert (round(even.item(), 4), round(layer.balance.item(), 4)) == (1.0, 4.0)


def test_the_balance_loss_teaches_the_router(moe: Transformer) -> None:
    moe.train()(torch.arange(60).view(2, 30))
    moe.balance_loss().backward()
    assert all(block.feedforward.router.weight.grad.any() for block in moe.blocks)


def test_a_dense_model_has_no_balance_to_lose(dense: Transformer) -> None:
    dense.train()(torch.arange(6)[None])
    assert dense.balance_loss() == 0
