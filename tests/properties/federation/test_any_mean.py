"""Means of any order against fifty digits, and every rule on logits of ±1e4 and on zero probabilities."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharedllm.attribution import reconcile
from sharedllm.combiner import (
    Bayes,
    Combiner,
    FixedShare,
    Pruned,
    Router,
    Static,
    Uniform,
    Weights,
    blended,
    mixture,
    power_mean,
    product,
)
from sharedllm.combiner.means import log_mean
from sharedllm.errors import BadMixture

torch.set_num_threads(1)
steady = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)
orders = st.one_of(st.sampled_from([0.0, 1e-12, 0.2499, 0.25, 0.5, 1.0]), st.floats(0, 1))


def exactly(a_N: Tensor, logw_N: Tensor, r: float) -> Decimal:
    """The mean of order r of probabilities e^a, in logarithms, to fifty digits."""
    with localcontext() as context:
        context.prec, context.Emin, context.Emax = 50, -(10**9), 10**9
        weights = [Decimal(x).exp() for x in logw_N.tolist()]
        weights = [w / sum(weights) for w in weights]
        values = [Decimal(x) for x in a_N.tolist()]
        if r < 1e-100:
            return sum((w * a for w, a in zip(weights, values, strict=True)), Decimal(0))
        terms = [w * (Decimal(r) * a).exp() for w, a in zip(weights, values, strict=True)]
        return sum(terms, Decimal(0)).ln() / Decimal(r)


@steady
@given(seeds, st.integers(1, 6), orders, st.sampled_from([0.01, 3.0, 300.0]), st.sampled_from([1.0, 1e3]))
def test_a_mean_of_any_order_is_right_to_a_few_ulps(seed, n, r, spread, uneven):
    generator = torch.Generator().manual_seed(seed)
    a_N = -spread * torch.rand(n, generator=generator, dtype=torch.float64) - 1e-3
    logw_N = (uneven * torch.randn(n, generator=generator, dtype=torch.float64)).log_softmax(0)
    for dtype in (torch.float32, torch.float64):
        given_N = a_N.to(dtype)
        exact = exactly(given_N, logw_N, r)
        ulps = abs(Decimal(float(log_mean(given_N, logw_N, r))) - exact) / Decimal(torch.finfo(dtype).eps)
        assert ulps <= 8 * (1 + abs(exact)) * (4 if r >= 0.25 else 1)


def kinds(n: int) -> list[Weights]:
    """Every kind of weights, none of them even where it can be helped."""
    uneven_N = torch.arange(1.0, n + 1, dtype=torch.float64).log().log_softmax(0)
    router = Router(torch.ones(n, 1), uneven_N, torch.zeros(1), torch.ones(1))
    share = FixedShare(n, 0.02 * (n > 1), uneven_N)
    return [Uniform(n), Static(uneven_N), Bayes(n, uneven_N), share, Pruned(share), router]


def hostile(seed: int, n: int, v: int) -> Tensor:
    """Distributions of logits up to ±1e4, with zero probabilities; every token is possible to somebody."""
    generator = torch.Generator().manual_seed(seed)
    scale = 10.0 ** float(torch.randint(0, 5, (), generator=generator))
    logits_NV = scale * (2 * torch.rand(n, v, generator=generator, dtype=torch.float64) - 1)
    impossible_NV = torch.rand(n, v, generator=generator) < 0.3
    impossible_NV[torch.randint(n, (v,), generator=generator), torch.arange(v)] = False
    impossible_NV[:, 0] = False
    return logits_NV.masked_fill(impossible_NV, -math.inf).log_softmax(-1)


@steady
@given(seeds, st.integers(1, 6), st.integers(2, 30), st.sampled_from([torch.float32, torch.float64]), orders)
def test_every_rule_gives_a_distribution_whatever_the_logits(seed, n, v, dtype, order):
    logp_NV = hostile(seed, n, v).to(dtype)
    floor = {torch.float32: 2e-5, torch.float64: 1e-11}[dtype]  # e^m at 1e4 nats is off by ulps of 1e4
    for weights in kinds(n):
        for combiner in (Combiner(weights.start()), Combiner(weights.start(), order)):
            m_V = combiner.joint(logp_NV)
            assert not m_V.isnan().any()
            assert abs(float(m_V.double().logsumexp(0))) <= floor * max(1.0, 1e-4 * abs(float(m_V.max())))
            combiner.observe(logp_NV, int(m_V.argmax()))
            assert abs(float(combiner.weights.logw_N.logsumexp(0))) <= 1e-9


@steady
@given(seeds, st.integers(2, 6), st.integers(2, 30))
def test_one_who_calls_the_chosen_token_impossible_takes_no_rule_down(seed, n, v):
    logp_NV = hostile(seed, n, v)
    logp_NV[0, 0] = -math.inf
    for weights in kinds(n):
        state = weights.start()
        m = mixture(logp_NV[:, 0], state.logw_N)
        assert m > -math.inf or bool(((logp_NV[:, 0] == -math.inf) | (state.logw_N == -math.inf)).all())
        assert not state.observe(logp_NV[:, 0]).isnan().any()
        assert abs(float(state.logw_N.logsumexp(0))) <= 1e-9


@steady
@given(seeds, st.integers(1, 5), st.integers(1, 6), st.integers(1, 9), orders)
def test_a_token_is_combined_alike_alone_and_among_others(seed, n, t, v, order):
    generator = torch.Generator().manual_seed(seed)
    logp_NTV = (5 * torch.randn(n, t, v, generator=generator, dtype=torch.float64)).log_softmax(-1)
    logw_NT = torch.randn(n, t, generator=generator, dtype=torch.float64).log_softmax(0)
    together_TV = power_mean(logp_NTV, order, logw_NT)
    for at in range(t):
        alone_V = power_mean(logp_NTV[:, at], order, logw_NT[:, at])
        torch.testing.assert_close(together_TV[at], alone_V, atol=1e-13, rtol=1e-13)


@steady
@given(seeds, st.integers(1, 5), st.integers(1, 8), orders)
def test_one_specialist_alone_is_never_changed(seed, copies, v, order):
    generator = torch.Generator().manual_seed(seed)
    logp_V = (5 * torch.randn(v, generator=generator, dtype=torch.float64)).log_softmax(-1)
    combined_V = power_mean(logp_V.expand(copies, -1), order)
    torch.testing.assert_close(combined_V, logp_V, atol=1e-13, rtol=1e-13)


def test_a_veto_of_everything_ends_products_alone():
    logp_NV = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64).log()
    assert mixture(logp_NV, Uniform(2).logw_N).exp().tolist() == pytest.approx([0.5, 0.5])
    with pytest.raises(BadMixture, match="veto"):
        product(logp_NV)


@steady
@given(seeds, st.integers(1, 6), st.sampled_from([torch.float32, torch.float64]), st.sampled_from([1.0, 1e3]))
def test_blended_logits_are_the_mixture_of_their_distributions(seed, n, dtype, uneven):
    generator = torch.Generator().manual_seed(seed)
    logits_NV = (hostile(seed, n, 40) + 7).to(dtype)
    logw_N = (uneven * torch.randn(n, generator=generator, dtype=torch.float64)).log_softmax(0)
    logp_NV = logits_NV.double().log_softmax(-1)
    blend, mixed_V = blended(logits_NV.unbind(), logw_N), mixture(logp_NV, logw_N)
    allowed = 1e-14 + 4 * torch.finfo(torch.float64).eps * mixed_V.abs().nan_to_num(posinf=0.0)
    assert bool(((blend.m_V == mixed_V) | ((blend.m_V - mixed_V).abs() <= allowed)).all())
    for token in range(40):
        off_N = blend.evidence(token) - logp_NV[:, token]
        assert bool((off_N.nan_to_num(nan=0.0).abs() <= 4e-12).all())


@steady
@given(seeds, st.integers(1, 6))
def test_the_ledger_of_what_was_blended_adds_up(seed, n):
    generator = torch.Generator().manual_seed(seed)
    logits = [6 * torch.randn(500, generator=generator) for _ in range(n)]
    logw_N = torch.randn(n, generator=generator, dtype=torch.float64).log_softmax(0)
    blend = blended(logits, logw_N)
    a_NT = torch.stack([blend.evidence(token) for token in range(500)], 1)
    residuals_T = reconcile(a_NT, logw_N[:, None].expand(-1, 500), blend.m_V).residuals()
    assert float(residuals_T.max()) <= 1e-12
    assert float(blend.m_V.logsumexp(0).abs()) <= 1e-14
