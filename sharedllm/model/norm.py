"""Root-mean-square normalisation, whose weight is the *gain* that adapters tune."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["RMSNorm"]


class RMSNorm(nn.Module):
    """Scale each vector to unit root-mean-square, then by the gain ``weight``.

    ``h_BTD → h_BTD``; ``y = x / sqrt(mean(x²) + eps) · weight``. Zhang and Sennrich, 1910.07467 §4.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, h_BTD: Tensor, gains: Tensor | None = None) -> Tensor:
        """Normalise the last dimension; ``gains``, one vector per row, stand in for the norm's own.

        A row gets the same bits either way, if its vector is the weight.
        """
        if gains is None:
            return F.rms_norm(h_BTD, self.weight.shape, self.weight, self.eps)
        return F.rms_norm(h_BTD, self.weight.shape, None, self.eps) * gains
