"""What all bit-identity rests on: a row's product has the same bits in any company, on this machine."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sharedllm.model import PackedProjection
from sharedllm.model.feedforward import MixtureOfExperts, _steady_silu
from sharedllm.model.projection import Projection, pack, project_all, steady
from tests.unit.engines.toys import CONFIGS

SHAPES = [(48, 64), (67, 51), (576, 192), (1, 8), (8, 1), (40, 333)]


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


@pytest.fixture(params=SHAPES, ids=str)
def weight(request: pytest.FixtureRequest) -> torch.Tensor:
    inputs, outputs = request.param
    return drawn(outputs, inputs) / inputs**0.5


@pytest.mark.parametrize("threads", [1, 2])
def test_this_machine_is_steady(weight: torch.Tensor, threads: int) -> None:
    torch.set_num_threads(threads)
    with torch.inference_mode():
        assert steady(PackedProjection(weight))


def test_one_thread_and_two_give_the_same_bits(weight: torch.Tensor) -> None:
    packed, x = PackedProjection(weight), drawn(67, weight.shape[1])
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.inference_mode():
            found.append([packed(x), packed(x[:1]), packed(x[5:9])])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
    assert torch.equal(found[0][0][:1], found[0][1])


@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (64,), (1, 1), (3, 5), (2, 1, 4)], ids=str)
def test_it_multiplies_by_the_transposed_weight(weight: torch.Tensor, shape: tuple[int, ...]) -> None:
    x = drawn(*shape, weight.shape[1])
    with torch.inference_mode():
        y = PackedProjection(weight)(x)
    torch.testing.assert_close(y, F.linear(x, weight), atol=1e-5, rtol=1e-5)


def test_no_rows_are_no_rows() -> None:
    with torch.inference_mode():
        assert PackedProjection(drawn(5, 4))(torch.empty(0, 4)).shape == (0, 5)


def test_several_projections_read_their_weights_in_one_product() -> None:
    projections = [Projection(40, outputs) for outputs in (16, 8, 3)]
    with torch.no_grad():
        for projection in projections:
            projection.weight.copy_(drawn(*projection.weight.shape))
    packed, x = pack(*projections), drawn(6, 40)
    with torch.inference_mode():
        together = project_all(x, *packed)
        for plain, part, alone in zip(projections, together, packed, strict=True):
            torch.testing.assert_close(part, F.linear(x, plain.weight), atol=1e-5, rtol=1e-5)
            assert torch.equal(alone(x), part)


def test_a_measure_of_steadiness_sees_what_is_not_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = PackedProjection(drawn(8, 16))
    monkeypatch.setattr(
        "sharedllm.model.projection._multiplied", lambda rows, _: rows[:, :8] * (1 + len(rows) % 2)
    )
    assert not steady(packed)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("rows", "hidden"), [(1, 33), (5, 7), (5, 14_336), (86, 1536), (2, 40_000), (64, 704), (3, 1)]
)
def test_a_gate_has_the_same_bits_wherever_it_stands(threads: int, rows: int, hidden: int) -> None:
    torch.set_num_threads(threads)
    x_RF = drawn(rows, 2 * hidden)[:, :hidden] * 3
    y_RF = _steady_silu(x_RF)
    torch.testing.assert_close(y_RF, F.silu(x_RF), atol=1e-6, rtol=1e-6)
    torch.set_num_threads(1)
    assert all(torch.equal(_steady_silu(x_RF[at : at + 1].clone()), y_RF[at : at + 1]) for at in range(rows))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_token_alone_with_its_expert_has_the_bits_that_it_has_in_a_group(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layer = MixtureOfExperts(CONFIGS["moe"])
    for weight in layer.parameters():
        nn.init.normal_(weight, std=0.2)
    layer.requires_grad_(False).eval().pack()
    h_BTD = drawn(1, 64, 40)
    with torch.inference_mode():
        together = layer(h_BTD)
        for count in (1, 2, 3, 17):
            for at in range(0, 64 - count, count):
                assert torch.equal(layer(h_BTD[:, at : at + count]), together[:, at : at + count])
