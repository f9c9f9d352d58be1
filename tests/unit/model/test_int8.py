"""Int8 weights: a faster copy that says nearly the same, and leaves the original alone."""

from __future__ import annotations

import math

import pytest
import torch

from sharedllm.model import Sampling, Tokenizer, Transformer, generate, int8, score
from sharedllm.model.projection import Int8Projection
from sharedllm.shapes import bits_per_byte

TOKENS = torch.randint(320, (2, 24), generator=torch.Generator().manual_seed(6))
ROUNDING = 2**-7  # bf16 activations and outputs: two roundings of 2⁻⁸ each


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 8, 9, 40])
def test_an_int8_product_is_that_of_its_rounded_weights(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight, x = torch.randn(48, 64, generator=generator), torch.randn(rows, 64, generator=generator)
    quantised = Int8Projection(weight)
    rounded = quantised.weight_int8.float() * quantised.scale_bf16.float()[:, None]
    torch.testing.assert_close(quantised(x), x @ rounded.T, atol=ROUNDING * 8 * math.sqrt(2), rtol=ROUNDING)


@torch.no_grad()
def test_no_weight_moves_by_more_than_half_a_step_of_its_row() -> None:
    weight = (
        torch.randn(48, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, 48)[:, None]
    )
    quantised = Int8Projection(weight)
    scale = quantised.scale_bf16.float()[:, None]
    error = (quantised.weight_int8.float() * scale - weight).abs()
    # rounding the scale down to bf16 can cut the row's largest weight by 127 · 2⁻⁹ of a step
    assert bool((error <= scale * (0.5 + 127 * 2**-8)).all())


def test_a_row_of_zeros_stays_zero() -> None:
    assert not Int8Projection(torch.zeros(16, 32))(torch.ones(1, 32)).any()


@torch.no_grad()
def test_an_int8_copy_predicts_nearly_the_same(model: Transformer) -> None:
    logp, logq = model(TOKENS).log_softmax(-1), int8(model)(TOKENS).log_softmax(-1)
    divergence_nats = (logp.exp() * (logp - logq)).sum(-1).mean().item()
    assert 0 < divergence_nats < 0.05  # a router on an edge may choose another expert


@torch.no_grad()
def test_making_an_int8_copy_leaves_the_model_as_it_was(model: Transformer) -> None:
    before, names = model(TOKENS), list(model.state_dict())
    int8(model)
    assert torch.equal(model(TOKENS), before)
    assert list(model.state_dict()) == names


def test_an_int8_copy_shares_the_gains(dense: Transformer) -> None:
    theirs, ours = int8(dense).gains(), dense.gains()
    assert all(theirs[name] is gain for name, gain in ours.items())


@torch.no_grad()
def test_an_int8_copy_can_be_cut_into_spans_too(dense: Transformer) -> None:
    small = int8(dense)
    h = small.span(1, 3)(small.span(0, 1)(small.embed(TOKENS)))
    assert torch.equal(small.logits(h), small(TOKENS))


def test_an_int8_copy_generates(dense: Transformer, tokenizer: Tokenizer) -> None:
    assert len(generate(int8(dense), tokenizer, ["the cat"], Sampling(max_tokens=4))[0].tokens) == 4


@pytest.mark.slow
def test_int8_costs_the_real_model_less_than_a_hundredth_of_a_bit_per_byte(
    smollm2: tuple[Transformer, Tokenizer],
) -> None:
    from sharedllm import corpus

    model, tokenizer = smollm2
    text = corpus.domain("drama").validation[0].text[:4000]
    tokens = tokenizer.encode(text)
    nats = [score(m, tokens, 256).sum().item() for m in (model, int8(model))]
    exact, rounded = (bits_per_byte(total, len(text.encode())) for total in nats)
    assert abs(rounded - exact) < 0.01
