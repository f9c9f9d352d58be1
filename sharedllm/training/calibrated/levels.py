"""The values that a group of weights may take, and the nearest of them: one plane of trits, or two.

A plane is trits t ∈ {−1, 0, 1} with a scale s per row and group; a weight is Σ_p s_p t_p. One plane has
three levels, two have nine (packed 1.6 and 3.2 bits).

Shapes: O outputs, J inputs of a group, P planes, ``N = 3^P``.
"""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

__all__ = ["fitted", "nearest", "values"]

_ROUNDS = 8  # of fitting two scales and choosing trits in turn; they hardly change after five


def nearest(weight_O: Tensor, scales_OP: Tensor) -> Tensor:
    """Choose the trits whose level lies nearest to each weight: ``trits_OP``, fp32."""
    combinations_NP = _combinations(scales_OP.shape[1])
    levels_ON = scales_OP @ combinations_NP.T
    return combinations_NP[(levels_ON - weight_O[:, None]).abs_().argmin(1)]


def values(trits_OP: Tensor, scales_OP: Tensor) -> Tensor:
    """Give the weights that trits and scales stand for: ``weight_O``."""
    return (trits_OP * scales_OP).sum(1)


def fitted(weight_OJ: Tensor, importance_J: Tensor, planes: int) -> Tensor:
    """Fit each row's scales to a group of weights by weighted least squares: ``scales_OP``.

    Exact for one plane: the best trits keep the k largest magnitudes for some k. For two it starts with the
    best plane of what the first leaves and then improves both in turn.
    """
    first_O = _one(weight_OJ, importance_J)
    if planes == 1:
        return first_O[:, None]
    trits_OJ = _rounded(weight_OJ, first_O)
    second_O = _one(weight_OJ - first_O[:, None] * trits_OJ, importance_J)
    scales_OP = torch.stack([first_O, second_O], 1)
    for _ in range(_ROUNDS):
        scales_OP = _solved(weight_OJ, importance_J, scales_OP)
    return scales_OP.abs()


def _one(weight_OJ: Tensor, importance_J: Tensor) -> Tensor:
    """The best single scale: with the k largest kept, the error falls by (Σ d|w|)² / Σ d; take the best k."""
    magnitude_OJ, order_OJ = weight_OJ.abs().sort(1, descending=True)
    kept_OJ = importance_J.expand_as(weight_OJ).gather(1, order_OJ)
    mass_OJ, total_OJ = kept_OJ.cumsum(1), (kept_OJ * magnitude_OJ).cumsum(1)
    best_O1 = (total_OJ.square() / mass_OJ).argmax(1, keepdim=True)
    return (total_OJ.gather(1, best_O1) / mass_OJ.gather(1, best_O1))[:, 0]


def _rounded(weight_OJ: Tensor, scale_O: Tensor) -> Tensor:
    return weight_OJ.sign() * (weight_OJ.abs() > scale_O[:, None] / 2)


def _solved(weight_OJ: Tensor, importance_J: Tensor, scales_OP: Tensor) -> Tensor:
    """Choose the nearest trits, then solve for the scales that fit them best (ridge against equal planes)."""
    outputs, group = weight_OJ.shape
    flat = nearest(weight_OJ.reshape(-1), scales_OP.repeat_interleave(group, 0))
    trits_OJP = flat.view(outputs, group, -1)
    weighted_OPJ = (trits_OJP * importance_J[:, None]).mT
    gram_OPP, seen_OP = weighted_OPJ @ trits_OJP, (weighted_OPJ @ weight_OJ[..., None])[..., 0]
    ridge = 1e-6 * float(importance_J.sum())
    gram_OPP = gram_OPP + ridge * torch.eye(gram_OPP.shape[1])
    solved_OP: Tensor = torch.linalg.solve(gram_OPP, seen_OP + ridge * scales_OP)
    return solved_OP


@functools.lru_cache(maxsize=2)
def _combinations(planes: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0, -1.0), repeat=planes)))
