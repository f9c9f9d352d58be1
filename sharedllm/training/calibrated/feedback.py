"""One matrix to trits, so that its *outputs* change least: errors of a column are fed into those behind it.

The objective is ``tr((Ŵ − W) H (Ŵ − W)ᵀ)`` with ``H = XᵀX / M`` over M calibration inputs, damped. Columns
are rounded one by one and what that costs is made good in the columns that are still free (GPTQ, Frantar et
al. 2210.17323 §3.2, with the Cholesky factor of H⁻¹), each group's scales fitted when its turn comes. Then
all scales of a row are solved for jointly and single trits re-chosen given all others (coordinate descent, as
in QuantEase, Behdin et al. 2309.01885), a few times over.

*Covered*: never worse than rounding on the damped objective, row by row (the better of both is kept).
*Not covered*: orders of columns other than theirs; the optimum, which is NP-hard.

Shapes: O outputs, I inputs, G groups per row, P planes. Everything in fp32 but scales, which fit fp16.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sharedllm.errors import BadRecipe
from sharedllm.training.calibrated.levels import fitted, nearest, values

__all__ = ["Matrix", "damped", "fed_back", "group_of", "objective", "rounded"]

_DAMPING = 0.01  # of the mean diagonal (GPTQ §3.3)
_PASSES = 4  # of coordinate descent; the objective falls by < 1 % after three


@dataclass(frozen=True)
class Matrix:
    """A matrix as planes of trits: ``trits_POI`` (int8) and ``scales_POG`` (fp32 that fits fp16)."""

    trits_POI: Tensor
    scales_POG: Tensor

    def restored(self) -> Tensor:
        """Give the weights in fp32, ``weight_OI``."""
        inputs = self.trits_POI.shape[2]
        scales_POI = self.scales_POG.repeat_interleave(inputs // self.scales_POG.shape[2], 2)
        return (self.trits_POI * scales_POI).sum(0)

    def rows(self, start: int, stop: int) -> Matrix:
        """Give outputs ``[start, stop)`` alone."""
        return Matrix(self.trits_POI[:, start:stop].contiguous(), self.scales_POG[:, start:stop].contiguous())


def group_of(inputs: int, at_most: int) -> int:
    """Give the largest group of at most ``at_most`` that divides a row: 64 of 576 and of 1,536, 48 of 96."""
    if at_most < 1:
        raise BadRecipe(f"A group of {at_most} weights can't share a scale; give at least 1.")
    return next(size for size in range(min(at_most, inputs), 0, -1) if inputs % size == 0)


def damped(gram_II: Tensor, count: int) -> Tensor:
    """Turn ``XᵀX`` over ``count`` inputs into H; inputs that are always zero get the identity's share.

    Raises ``BadRecipe`` when the inputs held NaN or infinity.
    """
    if not bool(gram_II.isfinite().all()):
        raise BadRecipe(
            "The calibration inputs of a layer hold NaN or infinity; the model is damaged, fetch it again."
        )
    mean_II = gram_II / max(count, 1)
    level = float(mean_II.diagonal().mean())
    return mean_II + torch.eye(len(mean_II)) * (_DAMPING * level if level > 0 else 1.0)


def objective(weight_OI: Tensor, restored_OI: Tensor, h_II: Tensor) -> Tensor:
    """Give what each row's error costs, ``cost_O``."""
    error_OI = (restored_OI - weight_OI).double()
    return ((error_OI @ h_II.double()) * error_OI).sum(1)


def rounded(weight_OI: Tensor, *, planes: int, group: int) -> Matrix:
    """Round to the nearest levels with the scales of least squared error per group: no calibration."""
    outputs, inputs = weight_OI.shape
    even_J = torch.ones(group)
    flat = weight_OI.reshape(-1, group)
    scales = _half(fitted(flat, even_J, planes))
    trits = nearest(flat.reshape(-1), scales.repeat_interleave(group, 0)).view(outputs, inputs, planes)
    by_group = scales.view(outputs, inputs // group, planes)
    return Matrix(trits.permute(2, 0, 1).to(torch.int8), by_group.permute(2, 0, 1))


def fed_back(weight_OI: Tensor, h_II: Tensor, *, planes: int, group: int) -> Matrix:
    """Turn a matrix into trits by its inputs' damped second moments; see the module."""
    best = rounded(weight_OI, planes=planes, group=group)
    cost_O = objective(weight_OI, best.restored(), h_II)
    work = _Work(weight_OI, h_II, planes, group)
    work.feed_back()
    for number in range(_PASSES + 1):
        if number:
            work.descend()
        work.refit()
        now = work.matrix()
        now_O = objective(weight_OI, now.restored(), h_II)
        better_O = now_O < cost_O
        best = Matrix(
            torch.where(better_O[:, None], now.trits_POI, best.trits_POI),
            torch.where(better_O[:, None], now.scales_POG, best.scales_POG),
        )
        cost_O = torch.minimum(cost_O, now_O)
    return best


class _Work:
    """Trits and scales of one matrix while they are being improved."""

    def __init__(self, weight_OI: Tensor, h_II: Tensor, planes: int, group: int) -> None:
        self.weight_OI, self.h_II, self.planes, self.group = weight_OI, h_II, planes, group
        outputs, inputs = weight_OI.shape
        self.trits_OIP = torch.zeros(outputs, inputs, planes)
        self.scales_OGP = torch.zeros(outputs, inputs // group, planes)

    def feed_back(self) -> None:
        """Round column by column, each group's scales fitted to what is left of it when its turn comes."""
        inverse_II = torch.cholesky_inverse(torch.linalg.cholesky(self.h_II))
        upper_II = torch.linalg.cholesky(inverse_II, upper=True)
        left_OI = self.weight_OI.clone()
        for number in range(self.scales_OGP.shape[1]):
            start, stop = number * self.group, (number + 1) * self.group
            part_OJ, factor_JJ = left_OI[:, start:stop], upper_II[start:stop, start:stop]
            scales_OP = fitted(part_OJ, factor_JJ.diagonal().pow(-2), self.planes)
            self.scales_OGP[:, number] = scales_OP
            errors_OJ = torch.empty_like(part_OJ)
            for j in range(self.group):
                trits_OP = nearest(part_OJ[:, j], scales_OP)
                self.trits_OIP[:, start + j] = trits_OP
                error_O = (part_OJ[:, j] - values(trits_OP, scales_OP)) / factor_JJ[j, j]
                part_OJ[:, j + 1 :].addr_(error_O, factor_JJ[j, j + 1 :], alpha=-1)
                errors_OJ[:, j] = error_O
            left_OI[:, stop:].addmm_(errors_OJ, upper_II[start:stop, stop:], alpha=-1)

    def descend(self) -> None:
        """Choose each trit anew, given all others of its row: the objective can only fall."""
        slope_OI = (self.restored() - self.weight_OI) @ self.h_II
        for number in range(self.scales_OGP.shape[1]):
            start, stop = number * self.group, (number + 1) * self.group
            scales_OP, here_JJ = self.scales_OGP[:, number], self.h_II[start:stop, start:stop]
            slope_OJ = slope_OI[:, start:stop].clone()
            moved_OJ = torch.empty_like(slope_OJ)
            for j in range(self.group):
                was_O = values(self.trits_OIP[:, start + j], scales_OP)
                trits_OP = nearest(was_O - slope_OJ[:, j] / here_JJ[j, j], scales_OP)
                self.trits_OIP[:, start + j] = trits_OP
                moved_O = values(trits_OP, scales_OP) - was_O
                slope_OJ.addr_(moved_O, here_JJ[j])
                moved_OJ[:, j] = moved_O
            slope_OI.addmm_(moved_OJ, self.h_II[start:stop])

    def refit(self) -> None:
        """Solve for all scales of each row at once, given its trits."""
        outputs, inputs, P = self.trits_OIP.shape
        G, J = inputs // self.group, self.group

        def by_group(each_OIP: Tensor) -> Tensor:
            return each_OIP.view(outputs, G, J, P).sum(2).flatten(1)

        grams = torch.zeros(outputs, G * P, G * P)
        for g in range(G):
            start, stop = g * J, (g + 1) * J
            for p in range(P):
                reach_OI = self.trits_OIP[:, start:stop, p] @ self.h_II[start:stop]
                grams[:, g * P + p] = by_group(reach_OI[..., None] * self.trits_OIP)
        seen_OK = by_group((self.weight_OI @ self.h_II)[..., None] * self.trits_OIP)
        # a group of zeros has any scale: the ridge keeps it, and planes that are equal, where they were
        level_O11 = grams.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-30)[:, None, None]
        grams += 1e-5 * level_O11 * torch.eye(G * P)
        seen_OK += 1e-5 * level_O11[..., 0] * self.scales_OGP.flatten(1)
        scales_OGP = torch.linalg.solve(grams, seen_OK).view(outputs, G, P)
        # a scale is positive: where it came out negative, the trits change sign instead
        signs_OGP = torch.where(scales_OGP < 0, -1.0, 1.0)
        self.trits_OIP = self.trits_OIP * signs_OGP.repeat_interleave(J, 1)
        self.scales_OGP = _half(scales_OGP * signs_OGP)

    def restored(self) -> Tensor:
        """Give the weights as they stand."""
        return (self.trits_OIP * self.scales_OGP.repeat_interleave(self.group, 1)).sum(2)

    def matrix(self) -> Matrix:
        """Give trits and scales as they stand; the scales fit fp16."""
        return Matrix(
            self.trits_OIP.permute(2, 0, 1).to(torch.int8), self.scales_OGP.permute(2, 0, 1).clone()
        )


def _half(scales: Tensor) -> Tensor:
    """Keep scales as fp16 does."""
    return scales.half().float()
