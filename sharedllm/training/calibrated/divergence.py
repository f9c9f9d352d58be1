"""How far a student's next-token distributions are from its teacher's, and the way back.

``KL(p ‖ q)`` per token, p the teacher's. Each piece of rows is multiplied by both heads, turned into its
gradient ``(q − p) · head`` and dropped, so that T × V logits never fill the memory. Matching all of p says
far more per token than the one word that came (Hinton et al. 1503.02531 §2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["divergence"]

_ROWS = 256


def divergence(h_MD: Tensor, taught_MD: Tensor, head_VD: Tensor) -> Tensor:
    """Compute the mean divergence, nats per token, of final normed hidden states; differentiable in ``h_MD``.

    Products run in the head's format, softmax and sums in fp32.
    """
    nats: Tensor = _Divergence.apply(h_MD, taught_MD, head_VD)  # type: ignore[no-untyped-call]
    return nats


class _Divergence(torch.autograd.Function):
    """Forward computes divergence and gradient together; backward only scales it."""

    @staticmethod
    def forward(ctx: Any, h_MD: Tensor, taught_MD: Tensor, head_VD: Tensor) -> Tensor:
        total_nats, m = 0.0, len(h_MD)
        dh_MD = torch.empty_like(h_MD, dtype=torch.float32) if ctx.needs_input_grad[0] else None
        for start in range(0, m, _ROWS):
            rows = slice(start, start + _ROWS)
            logq, logp = (_log_softmax(x[rows], head_VD) for x in (h_MD, taught_MD))
            p, q = logp.exp(), logq.exp()
            total_nats += float((p * logp.sub_(logq)).sum(dtype=torch.float64))
            if dh_MD is not None:
                dh_MD[rows] = q.sub_(p).div_(m).to(head_VD.dtype) @ head_VD
        ctx.save_for_backward(dh_MD)
        return h_MD.new_tensor(total_nats / m, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, None, None]:
        (dh_MD,) = ctx.saved_tensors
        return None if dh_MD is None else dh_MD * scale, None, None


def _log_softmax(x_MD: Tensor, head_VD: Tensor) -> Tensor:
    return torch.log_softmax((x_MD.to(head_VD.dtype) @ head_VD.T).float(), dim=-1)
