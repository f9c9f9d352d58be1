"""The loss of final hidden states and its gradient, in one pass over the vocabulary.

A softmax of 256 × 49,152 logits is 50 MB, written and read several times. Here a piece of the vocabulary at a
time is multiplied, exponentiated against the largest logit so far, and multiplied back while it is still in
the cache; what was summed before is scaled when a larger one comes, as in flash attention (Dao et al.
2205.14135 §3.1; the head is attention whose keys and values are the vocabulary). The target's own term is
added at the end in fp32, so that a token that was foreseen gets its small gradient exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["nats_and_slope"]

_ROWS, _PIECE = 256, 4096


def nats_and_slope(
    x_RTD: Tensor, head_VD: Tensor, targets_RT: Tensor, slope: bool
) -> tuple[Tensor, Tensor | None]:
    """Compute the mean loss of each row, ``nats_R``, and, if ``slope``, its gradient ``dx_RTD``, fp32.

    ``x_RTD`` is normed; products run in the head's format, sums in fp32.
    """
    T = targets_RT.shape[1]
    pieces = zip(
        torch.split(x_RTD.flatten(0, 1), _ROWS), torch.split(targets_RT.flatten(), _ROWS), strict=True
    )
    nats, slopes = zip(*(_piece(x, targets, head_VD, slope) for x, targets in pieces), strict=True)
    nats_R = torch.cat(nats).view(-1, T).mean(1)
    return nats_R, torch.cat(slopes).div_(T).view_as(x_RTD) if slope else None


def _piece(x_MD: Tensor, targets_M: Tensor, head_VD: Tensor, slope: bool) -> tuple[Tensor, Tensor]:
    low_MD, m = x_MD.to(head_VD.dtype), len(x_MD)
    most_M1, total_M1 = x_MD.new_full((m, 1), -torch.inf), x_MD.new_zeros(m, 1)
    sum_MD, at_target_M1 = torch.zeros_like(x_MD), x_MD.new_zeros(m, 1)
    for start in range(0, len(head_VD), _PIECE):
        piece_PD = head_VD[start : start + _PIECE]
        logits_MP = low_MD @ piece_PD.T
        now_M1 = torch.maximum(most_M1, logits_MP.amax(1, keepdim=True).float())
        index_M1 = (targets_M - start)[:, None]
        here_M1 = (index_M1 >= 0) & (index_M1 < len(piece_PD))
        index_M1 = index_M1.clamp(0, len(piece_PD) - 1)
        at_target_M1 = torch.where(here_M1, logits_MP.gather(1, index_M1).float(), at_target_M1)
        share_MP = logits_MP.float().sub_(now_M1).exp_()
        fading_M1 = (most_M1 - now_M1).exp_()
        total_M1 = total_M1 * fading_M1 + share_MP.sum(1, keepdim=True)
        if slope:
            share_MP.scatter_(1, index_M1, share_MP.gather(1, index_M1).masked_fill_(here_M1, 0.0))
            sum_MD = sum_MD.mul_(fading_M1).add_(share_MP.to(low_MD.dtype) @ piece_PD)
        most_M1 = now_M1
    log_share_M1 = at_target_M1 - most_M1 - total_M1.log()
    if slope:
        sum_MD = sum_MD.div_(total_M1).addcmul_(log_share_M1.expm1(), head_VD[targets_M].float())
    return -log_share_M1[:, 0], sum_MD
