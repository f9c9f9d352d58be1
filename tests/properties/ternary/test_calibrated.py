"""What must hold of calibrated trits for any matrix and any inputs."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.training.calibrated import damped, fed_back, objective, rounded


@settings(deadline=None, max_examples=40)
@given(
    outputs=st.integers(1, 6),
    groups=st.integers(1, 3),
    group=st.sampled_from([1, 4, 8]),
    rows=st.integers(0, 40),
    planes=st.sampled_from([1, 2]),
    spread=st.sampled_from([1e-3, 1.0, 30.0]),
    seed=st.integers(0, 10_000),
)
def test_feeding_errors_back_never_costs_a_row_more_than_rounding(
    outputs: int, groups: int, group: int, rows: int, planes: int, spread: float, seed: int
) -> None:
    chance = torch.Generator().manual_seed(seed)
    inputs = groups * group
    weight_OI = spread * torch.randn(outputs, inputs, generator=chance)
    x_MI = torch.randn(rows, inputs, generator=chance) * torch.rand(inputs, generator=chance)
    h_II = damped(x_MI.T @ x_MI, rows)
    fed = fed_back(weight_OI, h_II, planes=planes, group=group)
    plain = rounded(weight_OI, planes=planes, group=group)
    costs = [objective(weight_OI, found.restored(), h_II) for found in (fed, plain)]
    assert bool((costs[0] <= costs[1]).all())


@settings(deadline=None, max_examples=40)
@given(planes=st.sampled_from([1, 2]), factor=st.sampled_from([0.25, 2.0, 8.0]), seed=st.integers(0, 1_000))
def test_larger_weights_get_larger_scales_and_the_same_trits(planes: int, factor: float, seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    weight_OI = torch.randn(3, 16, generator=chance)
    plain, larger = (rounded(f * weight_OI, planes=planes, group=8) for f in (1.0, factor))
    assert torch.equal(plain.trits_POI, larger.trits_POI)
    assert torch.allclose(larger.scales_POG, factor * plain.scales_POG, rtol=2e-3)
