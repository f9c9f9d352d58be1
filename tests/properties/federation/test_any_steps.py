"""Weights carried token by token, in chunks or at once are the same bits, whatever the evidence."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharedllm.combiner import Bayes, FixedShare, Static, Uniform, Weights

torch.set_num_threads(1)
steady = settings(deadline=None)
seeds = st.integers(0, 2**31)


def kinds(n: int) -> list[Weights]:
    uneven_N = torch.arange(1.0, n + 1, dtype=torch.float64).log().log_softmax(0)
    return [Uniform(n), Static(uneven_N), Bayes(n, uneven_N), FixedShare(n, 0.07 * (n > 1))]


def evidence(seed: int, n: int, t: int) -> Tensor:
    """Log-probabilities from 1e-8 to 1e4 nats, some of them −inf, some tokens impossible to all."""
    generator = torch.Generator().manual_seed(seed)
    scale_NT = 10.0 ** torch.randint(-8, 5, (n, t), generator=generator)
    a_NT = -torch.rand(n, t, generator=generator, dtype=torch.float64) * scale_NT
    a_NT[torch.rand(n, t, generator=generator) < 0.2] = -math.inf
    a_NT[:, torch.rand(t, generator=generator) < 0.1] = -math.inf
    return a_NT


@steady
@given(seeds, st.integers(1, 70), st.integers(0, 12), st.integers(0, 12))
def test_observing_carrying_in_pieces_and_running_give_the_same_bits(seed, n, t, cut):
    a_NT = evidence(seed, n, t)
    cut = min(cut, t)
    for weights in kinds(n):
        logw_NT = weights.run(a_NT)
        pieces, steps = weights.start(), weights.start()
        carried_NT = torch.cat([pieces.carry(a_NT[:, :cut]), pieces.carry(a_NT[:, cut:])], 1)
        assert torch.equal(carried_NT, logw_NT)
        for at in range(t):
            assert torch.equal(steps.logw_N, logw_NT[:, at])
            assert torch.equal(steps.observe(a_NT[:, at]), steps.logw_N)
        assert torch.equal(steps.logw_N, pieces.logw_N)


@steady
@given(seeds, st.integers(1, 8), st.integers(1, 12))
def test_weights_sum_to_one_whatever_was_observed(seed, n, t):
    for weights in kinds(n):
        assert weights.run(evidence(seed, n, t)).logsumexp(0).abs().max() <= 1e-9


@steady
@given(seeds, st.integers(1, 8), st.integers(1, 12))
def test_tokens_are_undone_by_a_state_that_was_kept(seed, n, t):
    a_NT = evidence(seed, n, t)
    for weights in kinds(n):
        state = weights.start()
        state.observe(a_NT[:, 0])
        kept = state.start()
        assert torch.equal(state.carry(a_NT), kept.carry(a_NT))


@steady
@given(seeds, st.integers(1, 8), st.integers(1, 12))
def test_a_request_leaves_the_state_it_started_from_alone(seed, n, t):
    for weights in kinds(n):
        before_N = weights.logw_N.clone()
        weights.start().carry(evidence(seed, n, t))
        assert torch.equal(weights.logw_N, before_N)
