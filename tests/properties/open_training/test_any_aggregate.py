"""What must hold of every rule, whatever was sent."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharedllm.robust import RULES, aggregate

STEADY = settings(deadline=None, max_examples=40, derandomize=True)
SEEDS = st.integers(0, 2**31)
# clipping starts at zero, so it moves with the vectors only when told where its centre moves to
MOVING = [
    "mean",
    "median",
    "trimmed_mean",
    "geometric_median",
    "krum",
    "multi_krum",
    "nnm+median",
    "nnm+krum",
]
EVERY = [*RULES, "nnm+median", "nnm+geometric_median", "nnm+trimmed_mean"]
ROBUST = [rule for rule in EVERY if rule != "mean"]


@st.composite
def clouds(draw: st.DrawFn) -> tuple[Tensor, int, torch.Generator]:
    """Draw a cloud of workers, how many liars it is to bear, and the chance it was drawn from."""
    generator = torch.Generator().manual_seed(draw(SEEDS))
    f = draw(st.integers(0, 4))
    workers = draw(st.integers(2 * f + 3, 2 * f + 8))
    size = draw(st.integers(2, 30))  # on a line, more than one point is a geometric median
    return torch.randn(workers, size, generator=generator, dtype=torch.float64), f, generator


def near(one: Tensor, other: Tensor, scale: float = 1.0) -> bool:
    return float((one - other).abs().max()) <= 1e-6 * scale


@STEADY
@given(clouds(), st.sampled_from(EVERY))
def test_the_order_in_which_workers_report_does_not_matter(drawn, rule):
    vectors_KP, f, generator = drawn
    order = torch.randperm(len(vectors_KP), generator=generator)
    assert near(aggregate(vectors_KP[order], rule, f), aggregate(vectors_KP, rule, f))


@STEADY
@given(clouds(), st.sampled_from(MOVING), st.floats(-30, 30))
def test_what_all_have_in_common_is_added_to_the_aggregate(drawn, rule, shift):
    vectors_KP, f, _ = drawn
    assert near(aggregate(vectors_KP + shift, rule, f), aggregate(vectors_KP, rule, f) + shift)


@STEADY
@given(clouds(), st.sampled_from(EVERY), st.sampled_from([-1.0, 1e-6, 7.0, 1e6]))
def test_another_unit_is_another_unit_of_the_aggregate(drawn, rule, unit):
    vectors_KP, f, _ = drawn
    assert near(aggregate(unit * vectors_KP, rule, f), unit * aggregate(vectors_KP, rule, f), abs(unit))


@STEADY
@given(clouds(), st.sampled_from(["median", "trimmed_mean"]), st.floats(1, 1e30))
def test_each_coordinate_stays_between_the_honest_ones(drawn, rule, size):
    vectors_KP, f, generator = drawn
    honest_HP = vectors_KP[: len(vectors_KP) - f]
    lies_FP = size * torch.randn(f, vectors_KP.shape[1], generator=generator, dtype=torch.float64)
    found_P = aggregate(torch.cat([honest_HP, lies_FP]), rule, f)
    assert bool((found_P >= honest_HP.amin(0) - 1e-12).all())
    assert bool((found_P <= honest_HP.amax(0) + 1e-12).all())


@STEADY
@given(clouds(), st.sampled_from(ROBUST), st.floats(1, 1e12))
def test_no_liar_moves_a_robust_rule_beyond_what_the_honest_allow(drawn, rule, size):
    vectors_KP, f, generator = drawn
    honest_HP = vectors_KP[: len(vectors_KP) - f]
    lies_FP = size * torch.randn(f, vectors_KP.shape[1], generator=generator, dtype=torch.float64)
    found_P = aggregate(torch.cat([honest_HP, lies_FP]), rule, f)
    # the crudest of the published bounds (geometric median, 2302.01772 Table 1): 2 (n − f) / (n − 2f) spreads
    n, reach = len(vectors_KP), honest_HP.norm(dim=1).max()
    assert float(found_P.norm()) <= float(reach) * (1 + 2 * (n - f) / (n - 2 * f)) + 1e-6


@STEADY
@given(clouds(), st.floats(1, 1e9))
def test_one_liar_moves_the_mean_wherever_it_likes(drawn, size):
    vectors_KP, _, _ = drawn
    wanted_P = torch.full_like(vectors_KP[0], size)
    lie_P = len(vectors_KP) * wanted_P - vectors_KP[1:].sum(0)
    found_P = aggregate(torch.cat([lie_P[None], vectors_KP[1:]]), "mean", 0)
    assert torch.allclose(found_P, wanted_P, rtol=1e-9)


@STEADY
@given(clouds(), st.sampled_from(["nnm+median", "nnm+trimmed_mean", "multi_krum"]))
def test_what_is_a_thousand_times_too_long_is_removed_exactly(drawn, rule):
    vectors_KP, f, _ = drawn
    honest_HP = 1 + 0.1 * vectors_KP[: len(vectors_KP) - f]
    sent_KP = torch.cat([honest_HP, 1000 * honest_HP[:1].expand(f, -1)])
    assert torch.allclose(aggregate(sent_KP, rule, f), honest_HP.mean(0), rtol=1e-12)


@STEADY
@given(clouds())
def test_against_nobody_mixing_gives_the_mean(drawn):
    vectors_KP, _, _ = drawn
    assert torch.allclose(aggregate(vectors_KP, "nnm+median", 0), vectors_KP.mean(0), atol=1e-12)


@STEADY
@given(clouds(), SEEDS)
def test_single_buckets_change_nothing(drawn, seed):
    vectors_KP, f, _ = drawn
    chance = torch.Generator().manual_seed(seed)
    found_P = aggregate(vectors_KP, "bucketing+median", f, generator=chance, bucket=1)
    assert torch.equal(found_P, aggregate(vectors_KP, "median", f))
