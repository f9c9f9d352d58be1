"""Muon orthogonalises hidden matrices, and only those."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sharedllm.model import TOY_CONFIG, Transformer
from sharedllm.training import Muon, adamw, hidden_matrices, newton_schulz
from sharedllm.training.optimizer import Moments

# Five quintic steps land near 1, not on it: Jordan et al. 2024 report about [0.7, 1.2]
SINGULAR_LOW, SINGULAR_HIGH = 0.6, 1.3


@pytest.mark.parametrize("shape", [(32, 32), (16, 64), (64, 16), (4, 24, 48)])
def test_newton_schulz_makes_matrices_nearly_orthogonal(shape: tuple[int, ...]) -> None:
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(newton_schulz(g))
    assert SINGULAR_LOW < singular.min() <= singular.max() < SINGULAR_HIGH


def test_newton_schulz_keeps_the_singular_directions() -> None:
    g = torch.randn(24, 24, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(g)
    between = u.mT @ newton_schulz(g) @ v.mT
    torch.testing.assert_close(between, torch.diag(between.diagonal()), atol=1e-3, rtol=0)


def test_a_batch_of_matrices_is_orthogonalised_one_by_one() -> None:
    g = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(0))
    one_by_one = torch.stack([newton_schulz(matrix) for matrix in g])
    torch.testing.assert_close(newton_schulz(g), one_by_one, atol=1e-5, rtol=0)


def test_a_zero_gradient_moves_nothing() -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=1.0).step()
    torch.testing.assert_close(weight.detach(), torch.ones(4, 4))


def test_the_first_update_has_the_size_of_the_learning_rate() -> None:
    weight = nn.Parameter(torch.zeros(32, 16))
    weight.grad = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    Muon([weight], lr=0.1).step()
    largest = torch.linalg.matrix_norm(weight.detach(), 2) / (0.1 * (32 / 16) ** 0.5)
    assert SINGULAR_LOW < largest < SINGULAR_HIGH


def test_weight_decay_shrinks_before_the_update() -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=0.5, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 0.75))


def test_a_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="adamw"):
        Muon([nn.Parameter(torch.zeros(4))], lr=0.1)


def test_hidden_matrices_leave_embeddings_norms_and_routers_to_adamw() -> None:
    with torch.device("meta"):
        model = Transformer(TOY_CONFIG)
    _, rest = hidden_matrices(model)
    names = {name for name, p in model.named_parameters() if any(p is other for other in rest)}
    assert {name.split(".")[-2] for name in names} == {
        "embed",
        "attention_norm",
        "feedforward_norm",
        "norm",
        "router",
    }


def test_adamw_decays_no_gain() -> None:
    gain, matrix = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4, 4))
    gain.grad, matrix.grad = torch.zeros(4), torch.zeros(4, 4)
    adamw([gain, matrix], lr=0.1, weight_decay=0.5).step()
    assert (gain.detach() == 1).all()
    assert (matrix.detach() < 1).all()


def test_moments_move_a_tensor_as_adamw_does() -> None:
    torch.manual_seed(0)
    start, slopes = torch.randn(3, 5), torch.randn(6, 3, 5)
    tuned = nn.Parameter(start.clone())
    theirs, ours, moved = adamw([tuned], 1.0), Moments(start), start.clone()
    for step, slope in enumerate(slopes):
        theirs.param_groups[0]["lr"] = 0.1 / (step + 1)
        tuned.grad = slope.clone()
        theirs.step()
        ours.step(moved, slope, 0.1 / (step + 1))
    torch.testing.assert_close(moved, tuned.detach())
