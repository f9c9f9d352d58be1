"""Loss and gradient of gains by hand are those of automatic differentiation, whatever shares the batch."""

from __future__ import annotations

import pytest
import torch

from sharedllm.adapters.norm import Norm
from sharedllm.adapters.personal.frozen import Frozen
from sharedllm.model import Config, Transformer, token_nats

SHAPES = {
    "dense": Config(
        vocab_size=61, width=16, layers=2, heads=4, kv_heads=2, head_width=8, hidden=24, tied_head=False
    ),
    "experts": Config(
        vocab_size=61, width=16, layers=2, heads=2, kv_heads=2, head_width=8, hidden=24, experts=4
    ),
    "large vocabulary": Config(
        vocab_size=9001, width=16, layers=1, heads=2, kv_heads=2, head_width=8, hidden=24
    ),
}


@pytest.fixture(params=SHAPES)
def base(request) -> Transformer:
    torch.manual_seed(1)
    model = Transformer(SHAPES[request.param]).eval()
    with torch.no_grad():
        model.embed.weight.mul_(20)
        for name, weight in model.named_parameters():
            if "router" in name:
                weight.mul_(4)  # a router that prefers, so that its slope counts
    return model


def rows(base: Transformer, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    tokens_RT = torch.randint(base.config.vocab_size, (count, 20), generator=generator)
    gains_GD = torch.stack([gain.detach() for gain in base.gains().values()])
    return tokens_RT, gains_GD + 0.3 * torch.randn(count, *gains_GD.shape, generator=generator)


def differentiated(base: Transformer, tokens_T: torch.Tensor, gains_GD: torch.Tensor):
    tuned = Norm(base, 0, "fp32")
    for parameter, gain_D in zip(tuned.parameters, gains_GD, strict=True):
        parameter.data.copy_(gain_D)
    nats = token_nats(tuned.model, tokens_T[None]).mean()
    nats.backward()
    return nats.detach(), torch.stack([parameter.grad for parameter in tuned.parameters])


def test_each_row_has_the_loss_and_gradient_that_automatic_differentiation_gives_it_alone(base):
    tokens_RT, gains_RGD = rows(base)
    nats_R, slope_RGD = Frozen(base, torch.float32).slopes(tokens_RT, gains_RGD)
    for row in range(len(tokens_RT)):
        nats, slope_GD = differentiated(base, tokens_RT[row], gains_RGD[row])
        torch.testing.assert_close(nats_R[row], nats, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(slope_RGD[row], slope_GD, atol=1e-6, rtol=1e-4)


def test_a_loss_is_the_same_with_and_without_its_gradient(base):
    tokens_RT, gains_RGD = rows(base)
    frozen = Frozen(base, torch.float32)
    assert torch.equal(frozen.nats(tokens_RT, gains_RGD), frozen.slopes(tokens_RT, gains_RGD)[0])


def test_rounded_products_move_the_gradient_by_a_few_percent(base):
    tokens_RT, gains_RGD = rows(base)
    exact_RGD = Frozen(base, torch.float32).slopes(tokens_RT, gains_RGD)[1]
    rounded_RGD = Frozen(base, torch.bfloat16).slopes(tokens_RT, gains_RGD)[1]
    assert (rounded_RGD - exact_RGD).norm() < 0.05 * exact_RGD.norm()


def test_a_row_that_is_no_number_leaves_the_others_alone(base):
    tokens_RT, gains_RGD = rows(base)
    frozen = Frozen(base, torch.float32)
    nats_R, slope_RGD = frozen.slopes(tokens_RT[:2], gains_RGD[:2])
    gains_RGD[2] = torch.nan
    with_nan_R, slope_with_nan_RGD = frozen.slopes(tokens_RT, gains_RGD)
    assert with_nan_R[2].isnan()
    torch.testing.assert_close(with_nan_R[:2], nats_R)
    torch.testing.assert_close(slope_with_nan_RGD[:2], slope_RGD)


def test_the_base_is_left_as_it_was(base):
    before = [weight.detach().clone() for weight in base.parameters()]
    Frozen(base, torch.float32).slopes(*rows(base))
    assert all(torch.equal(one, two) for one, two in zip(before, base.parameters(), strict=True))
    assert all(weight.grad is None for weight in base.parameters())
