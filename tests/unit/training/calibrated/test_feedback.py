"""One matrix to trits: what feeding errors back gains, and what it must never cost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sharedllm.errors import BadRecipe
from sharedllm.training.calibrated import damped, fed_back, group_of, objective, rounded


def _problem(outputs: int = 24, inputs: int = 48, rows: int = 400) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    mixed = torch.randn(inputs, inputs) / inputs**0.5
    x_MI = torch.randn(rows, inputs) @ mixed
    return torch.randn(outputs, inputs), damped(x_MI.T @ x_MI, rows)


def _cost(planes: int, feed: bool) -> float:
    weight_OI, h_II = _problem()
    if feed:
        found = fed_back(weight_OI, h_II, planes=planes, group=16)
    else:
        found = rounded(weight_OI, planes=planes, group=16)
    return float(objective(weight_OI, found.restored(), h_II).sum())


@pytest.mark.parametrize("planes", [1, 2])
def test_feeding_errors_back_saves_a_third_of_what_rounding_costs_the_outputs(planes: int) -> None:
    assert _cost(planes, feed=True) < 0.67 * _cost(planes, feed=False)


def test_two_planes_cost_a_quarter_of_one_or_less() -> None:
    assert _cost(2, feed=True) < 0.25 * _cost(1, feed=True)


def test_every_weight_is_a_sum_of_its_planes_and_nothing_else() -> None:
    weight_OI, h_II = _problem()
    found = fed_back(weight_OI, h_II, planes=2, group=16)
    by_hand = sum(found.trits_POI[p].float() * found.scales_POG[p].repeat_interleave(16, 1) for p in range(2))
    assert torch.equal(found.restored(), torch.as_tensor(by_hand))


def test_scales_are_positive_numbers_that_fp16_holds() -> None:
    weight_OI, h_II = _problem()
    scales = fed_back(weight_OI, h_II, planes=2, group=16).scales_POG
    assert torch.equal(scales, scales.half().float())
    assert bool((scales >= 0).all())


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    weight_OI, h_II = _problem()
    whole = fed_back(weight_OI, h_II, planes=1, group=16)
    part = fed_back(weight_OI[5:9].contiguous(), h_II, planes=1, group=16)
    assert torch.equal(whole.trits_POI[:, 5:9], part.trits_POI)


def test_ternary_weights_come_back_as_they_are() -> None:
    torch.manual_seed(0)
    trits = torch.randint(-1, 2, (8, 32)).float()
    _, h_II = _problem(inputs=32)
    found = fed_back(0.5 * trits, h_II, planes=1, group=16)
    assert torch.allclose(found.restored(), 0.5 * trits, atol=1e-3)


def test_a_matrix_of_zeros_stays_one() -> None:
    _, h_II = _problem()
    assert not fed_back(torch.zeros(4, 48), h_II, planes=2, group=16).restored().any()


def test_a_matrix_whose_inputs_were_never_seen_is_rounded() -> None:
    weight_OI, _ = _problem()
    unseen = fed_back(weight_OI, damped(torch.zeros(48, 48), 0), planes=1, group=16)
    error = (unseen.restored() - weight_OI).square().sum()
    assert error <= (rounded(weight_OI, planes=1, group=16).restored() - weight_OI).square().sum()


def test_inputs_that_hold_nan_are_refused_in_a_sentence() -> None:
    with pytest.raises(BadRecipe, match="NaN or infinity; the model is damaged"):
        damped(torch.full((4, 4), torch.nan), 10)


@pytest.mark.parametrize(
    ("inputs", "expected"), [(576, 64), (1536, 64), (96, 48), (128, 64), (7, 7), (67, 1)]
)
def test_a_group_divides_its_row(inputs: int, expected: int) -> None:
    assert group_of(inputs, 64) == expected


def test_a_group_of_no_weights_is_refused() -> None:
    with pytest.raises(BadRecipe, match="at least 1"):
        group_of(64, 0)
