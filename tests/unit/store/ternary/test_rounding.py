"""Rounding to −s, 0 or s: each rule's scale, groups, stacks, and what has no scale."""

from __future__ import annotations

import pytest
import torch

from sharedllm.errors import BadModelFile
from sharedllm.store.ternary import TernaryTensor, exact, restored, ternarise, two_planes
from sharedllm.store.ternary.rounding import Scale

RULES: tuple[Scale, ...] = ("mean", "median", "optimal")
ROW = torch.tensor([[4.0, -2.0, 1.0, 0.5, 0.0]])


@pytest.mark.parametrize(("scale", "expected"), [("mean", 1.5), ("median", 1.0), ("optimal", 3.0)])
def test_a_row_has_the_scale_of_its_rule(scale: Scale, expected: float) -> None:
    assert ternarise(ROW, scale=scale)[1].item() == expected


def test_each_number_becomes_the_nearest() -> None:
    trits, scales = ternarise(ROW, scale="mean")
    assert trits.tolist() == [[1, -1, 1, 0, 0]]
    assert restored(trits, scales).tolist() == [[1.5, -1.5, 1.5, 0.0, 0.0]]


@pytest.mark.parametrize("scale", RULES)
def test_scales_are_numbers_that_fp16_holds(scale: Scale) -> None:
    scales = ternarise(torch.randn(7, 20), scale=scale)[1]
    assert scales.dtype == torch.float32
    assert torch.equal(scales, scales.half().float())


@pytest.mark.parametrize("scale", RULES)
def test_a_group_has_a_scale_of_its_own(scale: Scale) -> None:
    weight = torch.cat([torch.randn(3, 8), 100 * torch.randn(3, 8)], dim=1)
    trits, scales = ternarise(weight, scale=scale, group=8)
    halves = [ternarise(half, scale=scale) for half in weight.split(8, dim=1)]
    assert torch.equal(trits, torch.cat([half[0] for half in halves], dim=1))
    assert torch.equal(scales, torch.cat([half[1] for half in halves], dim=1))


@pytest.mark.parametrize("scale", RULES)
def test_a_stack_is_rounded_matrix_by_matrix(scale: Scale) -> None:
    stack = torch.randn(4, 6, 10)
    trits, scales = ternarise(stack, scale=scale, group=5)
    assert (trits.shape, scales.shape) == ((4, 6, 10), (4, 6, 2))
    assert torch.equal(trits[2], ternarise(stack[2], scale=scale, group=5)[0])


@pytest.mark.parametrize("scale", RULES)
def test_a_row_of_zeros_stays_zero(scale: Scale) -> None:
    trits, scales = ternarise(torch.zeros(2, 6), scale=scale)
    assert not trits.any()
    assert not scales.any()


@pytest.mark.parametrize("scale", RULES)
def test_numbers_too_small_for_fp16_become_zero(scale: Scale) -> None:
    assert not restored(*ternarise(torch.full((1, 4), 1e-12), scale=scale)).any()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e6])
def test_what_has_no_scale_is_refused(number: float) -> None:
    with pytest.raises(BadModelFile, match="have no scales"):
        ternarise(torch.full((1, 4), number), scale="mean")


@pytest.mark.parametrize("scale", RULES)
def test_a_single_nan_among_numbers_is_refused(scale: Scale) -> None:
    weight = torch.randn(3, 40)
    weight[1, 7] = float("nan")
    with pytest.raises(BadModelFile, match="have no scales"):
        ternarise(weight, scale=scale)


@pytest.mark.parametrize("group", [0, 3, 11, -5])
def test_a_group_that_does_not_divide_a_row_is_refused(group: int) -> None:
    with pytest.raises(ValueError, match=f"A group of {group} inputs does not divide rows of 10"):
        ternarise(torch.randn(2, 10), scale="mean", group=group)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="no scale 'best'; there are mean, median and optimal"):
        ternarise(torch.randn(2, 10), scale="best")  # type: ignore[arg-type]


def test_two_planes_leave_less_error_than_one() -> None:
    weight = torch.randn(16, 64)
    first, second = two_planes(weight)
    one = (weight - restored(*first)).square().sum()
    assert (weight - restored(*first) - restored(*second)).square().sum() < one / 3


def test_ternary_weights_are_recognised_as_they_are() -> None:
    weight = restored(*ternarise(torch.randn(5, 30), scale="median", group=6))
    assert torch.equal(restored(*exact(weight, group=6)), weight)


def test_weights_that_are_not_ternary_are_not_taken_for_it() -> None:
    with pytest.raises(BadModelFile, match="not ternary: a row holds more than one magnitude"):
        exact(ROW)


def test_a_magnitude_that_fp16_does_not_hold_is_not_ternary() -> None:
    with pytest.raises(BadModelFile, match="not ternary"):
        exact(torch.tensor([[0.1, -0.1, 0.0]]))


def test_scales_that_a_file_would_change_are_not_packed() -> None:
    with pytest.raises(BadModelFile, match="round them to fp16 first"):
        TernaryTensor.of((torch.ones(1, 3, dtype=torch.int8), torch.tensor([[0.1]])))
