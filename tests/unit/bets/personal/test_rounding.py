"""A rounded base is the base on a coarser grid, under a hash of its own, and takes the bytes that it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sharedllm.bets.personal import FORMS, Circle, round_weights, rounded_base
from sharedllm.errors import BadRecipe

Make = Callable[..., Circle]


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(3, 8, 64, generator=torch.Generator().manual_seed(0))


def test_a_ternary_row_holds_three_values(weight: torch.Tensor) -> None:
    rounded, _ = round_weights(weight, "ternary")
    assert {len(row.unique()) for row in rounded.flatten(0, 1)} == {3}


def test_the_error_of_a_normal_ternary_matrix_is_the_one_of_theory() -> None:
    normal = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0))
    rounded, _ = round_weights(normal, "ternary")
    assert float((rounded - normal).square().mean()) == pytest.approx(0.19, abs=0.005)


@pytest.mark.parametrize(("form", "steps"), [("int4", 7), ("int8", 127)])
def test_an_integer_is_off_by_at_most_half_a_step(weight: torch.Tensor, form: str, steps: int) -> None:
    rounded, _ = round_weights(weight, form)
    largest = float(weight.abs().max()) / steps
    assert float((rounded - weight).abs().max()) <= 0.51 * largest


@pytest.mark.parametrize(
    ("form", "n_bytes"), [("ternary", 24 * (13 + 2)), ("int4", 48 * (16 + 2)), ("int8", 24 * (64 + 2))]
)
def test_bytes_count_scales(weight: torch.Tensor, form: str, n_bytes: int) -> None:
    assert round_weights(weight, form)[1] == n_bytes


@pytest.mark.parametrize("form", FORMS)
def test_zeros_stay_zeros(form: str) -> None:
    rounded, _ = round_weights(torch.zeros(2, 32), form)
    assert torch.equal(rounded, torch.zeros(2, 32))


def test_fewer_bits_are_fewer_bytes_and_another_base(circle: Make) -> None:
    base = circle().base
    rounded = [rounded_base(base, form) for form in FORMS]
    hashes = {one.base.manifest.weights_sha256 for one in rounded} | {base.manifest.weights_sha256}
    sizes = [one.n_bytes for one in rounded]
    assert (sizes, len(hashes)) == (sorted(sizes), 4)


def test_rounding_leaves_gains_and_the_given_base_alone(circle: Make) -> None:
    base = circle().base
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    gains = rounded_base(base, "ternary").base.model.gains()
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())
    assert all(torch.equal(gain, before[name]) for name, gain in gains.items())


def test_a_base_may_be_rounded_as_often_as_one_likes(circle: Make) -> None:
    once = rounded_base(circle().base, "ternary").base
    again = rounded_base(once, "ternary").base
    kept = once.model.state_dict()
    for name, tensor in again.model.state_dict().items():
        torch.testing.assert_close(tensor, kept[name], rtol=1e-3, atol=1e-6)


def test_adapters_of_a_rounded_base_help_on_it(circle: Make) -> None:
    one = circle()
    other = Circle(
        rounded_base(one.base, "int4").base,
        one.users,
        one.budget,
        test_tokens=64,
        precision="fp32",
        swept=one.users,
        most=3,
    )
    assert other.nats("step", other.own("step", 0)).mean() < other.nats("step").mean()


def test_a_form_that_does_not_exist_is_refused(circle: Make) -> None:
    with pytest.raises(BadRecipe, match="int8"):
        rounded_base(circle().base, "int2")
