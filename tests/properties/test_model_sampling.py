"""What top-k and top-p promise, for any logits."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.model import Sampling, choose, probabilities

ROUNDING = 1e-9  # fp64 sums over at most 60 tokens

logits = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=60).map(torch.tensor)
temperatures = st.floats(0.05, 5)


@given(logits, temperatures, st.integers(0, 70), st.floats(0.01, 1))
def test_probabilities_sum_to_one(logits_V: torch.Tensor, temperature: float, k: int, p: float) -> None:
    p_V = probabilities(logits_V, Sampling(temperature=temperature, top_k=k, top_p=p))
    assert abs(p_V.sum().item() - 1) <= ROUNDING
    assert bool((p_V >= 0).all())


@given(logits, temperatures, st.integers(1, 70))
def test_top_k_keeps_at_most_k_and_none_that_is_likelier_is_dropped(
    logits_V: torch.Tensor, temperature: float, k: int
) -> None:
    kept = probabilities(logits_V, Sampling(temperature=temperature, top_k=k)) > 0
    assert kept.sum() <= k
    if not kept.all():
        assert logits_V[kept].min() >= logits_V[~kept & torch.isfinite(logits_V)].min()


@given(logits, temperatures, st.floats(0.01, 0.999))
def test_top_p_keeps_the_fewest_likeliest_tokens_whose_mass_reaches_p(
    logits_V: torch.Tensor, temperature: float, p: float
) -> None:
    whole_V = probabilities(logits_V, Sampling(temperature=temperature))
    kept = probabilities(logits_V, Sampling(temperature=temperature, top_p=p)) > 0
    mass = whole_V[kept].sum()
    assert mass >= p - ROUNDING
    assert mass - whole_V[kept].min() < p + ROUNDING
    assert whole_V[kept].min() >= whole_V[~kept].max() if not kept.all() else True


@given(logits, temperatures, st.integers(0, 70), st.floats(0.01, 1), st.integers(0, 2**31))
def test_a_token_that_was_filtered_out_is_never_chosen(
    logits_V: torch.Tensor, temperature: float, k: int, p: float, seed: int
) -> None:
    sampling = Sampling(temperature=temperature, top_k=k, top_p=p, seed=seed)
    p_V = probabilities(logits_V, sampling)
    generator = sampling.generator()
    assert all(p_V[choose(logits_V, sampling, generator)] > 0 for _ in range(5))


@settings(max_examples=25)
@given(st.integers(600, 3000), st.floats(0.5, 0.999), st.integers(0, 1000))
def test_top_p_over_a_large_vocabulary_keeps_the_mass_too(size: int, p: float, seed: int) -> None:
    logits_V = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 0.1
    whole_V = probabilities(logits_V, Sampling(temperature=1.0))
    kept = probabilities(logits_V, Sampling(temperature=1.0, top_p=p)) > 0
    assert whole_V[kept].sum() >= p - ROUNDING
    assert whole_V[kept].sum() - whole_V[kept].min() < p + ROUNDING
