"""The divergence of a student from its teacher, and its gradient, against automatic differentiation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sharedllm.training.calibrated.divergence import divergence


def _hidden(seed: int, rows: int = 300) -> Tensor:
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed))


def _plain(h_MD: Tensor, taught_MD: Tensor, head_VD: Tensor) -> Tensor:
    logq, logp = (torch.log_softmax(x @ head_VD.T, -1) for x in (h_MD, taught_MD))
    return F.kl_div(logq, logp, reduction="batchmean", log_target=True)


def test_it_is_the_divergence_that_torch_computes() -> None:
    h_MD, taught_MD, head_VD = _hidden(0), _hidden(1), _hidden(2, 40)
    torch.testing.assert_close(
        divergence(h_MD, taught_MD, head_VD), _plain(h_MD, taught_MD, head_VD), atol=1e-5, rtol=1e-5
    )


def test_its_gradient_is_that_of_automatic_differentiation() -> None:
    taught_MD, head_VD = _hidden(1), _hidden(2, 40)
    slopes = []
    for compute in (divergence, _plain):
        h_MD = _hidden(0).requires_grad_()
        compute(h_MD, taught_MD, head_VD).backward()  # type: ignore[no-untyped-call]
        assert h_MD.grad is not None
        slopes.append(h_MD.grad)
    torch.testing.assert_close(*slopes, atol=1e-6, rtol=1e-4)


def test_a_student_like_its_teacher_has_none() -> None:
    assert abs(float(divergence(_hidden(0), _hidden(0), _hidden(2, 40)))) < 1e-6
