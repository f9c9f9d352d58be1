"""What holds for all trits and all weights, not only for those that somebody thought of."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from sharedllm.store.ternary import (
    SteppedTensor,
    TernaryTensor,
    exact,
    pack,
    packed_bytes,
    restored,
    ternarise,
    two_planes,
    unpack,
)
from sharedllm.store.ternary.rounding import Scale

TRITS = st.lists(st.sampled_from([-1, 0, 1]), max_size=60)
RULES: st.SearchStrategy[Scale] = st.sampled_from(["mean", "median", "optimal"])
NUMBERS = st.floats(-1000, 1000, width=16)


@st.composite
def weights(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    """A matrix, and a size of groups that divides its rows."""
    rows, groups, group = (draw(st.integers(1, 5)) for _ in range(3))
    n = rows * groups * group
    numbers = draw(st.lists(NUMBERS, min_size=n, max_size=n))
    return torch.tensor(numbers).view(rows, groups * group), group


@given(TRITS)
def test_trits_come_back_as_they_went(numbers: list[int]) -> None:
    trits = torch.tensor(numbers, dtype=torch.int8)
    packed = pack(trits)
    assert len(packed) == packed_bytes(len(numbers)) == math.ceil(len(numbers) / 5)
    assert torch.equal(unpack(packed, len(numbers)), trits)


@given(st.lists(st.integers(0, 242), max_size=20))
def test_every_byte_up_to_242_is_five_trits(numbers: list[int]) -> None:
    packed = torch.tensor(numbers, dtype=torch.uint8)
    assert torch.equal(pack(unpack(packed, 5 * len(numbers))), packed)


@given(weights(), RULES)
def test_what_is_rounded_twice_is_rounded_once(drawn: tuple[torch.Tensor, int], scale: Scale) -> None:
    weight = restored(*ternarise(drawn[0], scale=scale, group=drawn[1]))
    assert torch.equal(restored(*exact(weight, group=drawn[1])), weight)


@given(weights(), RULES)
def test_no_trit_would_be_nearer(drawn: tuple[torch.Tensor, int], scale: Scale) -> None:
    weight, group = drawn
    trits, scales = ternarise(weight, scale=scale, group=group)
    error = (weight - restored(trits, scales)).abs()
    for other in (-1, 0, 1):
        assert bool((error <= (weight - restored(torch.full_like(trits, other), scales)).abs() + 1e-3).all())


@given(weights(), RULES)
def test_the_optimal_scale_leaves_no_more_error_than_the_others(
    drawn: tuple[torch.Tensor, int], scale: Scale
) -> None:
    weight, group = drawn

    def error(rule: Scale) -> float:
        return (weight - restored(*ternarise(weight, scale=rule, group=group))).double().square().sum().item()

    size = weight.double().square().sum().item()
    assert error("optimal") <= error(scale) + 2e-3 * size  # what rounding a scale to fp16 can cost


@given(weights())
def test_a_second_plane_never_adds_error(drawn: tuple[torch.Tensor, int]) -> None:
    weight, group = drawn
    first, second = two_planes(weight, group=group)
    one = (weight - restored(*first)).double().square().sum()
    two = (weight - restored(*first) - restored(*second)).double().square().sum()
    assert two <= one + 2e-3 * weight.double().square().sum()


@given(weights(), RULES, st.integers(1, 2))
def test_a_packed_weight_is_the_rounded_one(
    drawn: tuple[torch.Tensor, int], scale: Scale, planes: int
) -> None:
    weight, group = drawn
    pairs = two_planes(weight, scale=scale, group=group)[:planes]
    total = restored(*pairs[0])
    for pair in pairs[1:]:
        total = total + restored(*pair)
    assert torch.equal(TernaryTensor.of(*pairs).restored(), total)


@given(weights(), st.sampled_from([4, 8]))
def test_steps_are_at_most_half_a_step_off(drawn: tuple[torch.Tensor, int], bits: int) -> None:
    weight, group = drawn
    stepped = SteppedTensor.of(weight, bits=4 if bits == 4 else 8, group=group)
    scales = stepped.scales.float().repeat_interleave(group, dim=1)
    # the scale itself is rounded to fp16, at times to a subnormal number
    allowed = scales * (0.5 + 127 * 2**-10) + 127 * 2**-25
    assert bool(((stepped.restored() - weight).abs() <= allowed).all())
