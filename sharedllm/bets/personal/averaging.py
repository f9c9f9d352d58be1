"""The mean of several users' gains as one adapter, and whether it matters that they write alike.

*Covered*: gains, whose mean is the mean of what they change; any number of members, the base among them.
*Not covered*: LoRA, where the mean of factors is not the mean of updates, and a unigram bias, whose tokens
differ from user to user.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from sharedllm.adapters import Adapter
from sharedllm.bets.evidence.pairs import MAX_PERMUTED
from sharedllm.errors import BadAdapter

__all__ = ["averaged", "kinship_p"]


def averaged(members: Sequence[Adapter | None]) -> Adapter:
    """Average gains element by element; None is the base, so ``[own, None]`` is half of own gains.

    Raises ``BadAdapter`` where there is no adapter, one of another method, or of another base.
    """
    worn = [member for member in members if member is not None]
    kinds = {(one.method, one.base_sha256, tuple(sorted(one.tensors))) for one in worn}
    if len(kinds) != 1 or worn[0].method != "norm":
        found = ", ".join(sorted({f"{method} of {base[:12]}" for method, base, _ in kinds})) or "none"
        raise BadAdapter(f"The mean is of norm adapters of one base, and these are: {found}.")
    return Adapter(
        "norm",
        worn[0].base_sha256,
        {
            name: torch.stack([one.tensors[name] for one in worn]).sum(0) / len(members)
            for name in worn[0].tensors
        },
    )


def kinship_p(scores: ArrayLike, kinds: Sequence[str]) -> float:
    """Exact p-value of a table of pairs against "users of one kind do no better together than others".

    ``scores_UU[i, j]``: what users i and j gain together; both halves of the table count, the diagonal does
    not. The statistic is the mean over pairs of one kind − that over all others; the p-value is the share of
    all U! assignments of kinds to users whose statistic is at least the observed one. Raises ``ValueError``
    for a table that is not square, larger than 9 × 9, or without pairs of either sort.
    """
    scores_UU = np.asarray(scores, dtype=np.float64)
    size = len(kinds)
    names = np.array(kinds)
    alike_UU = (names[:, None] == names) & ~np.eye(size, dtype=bool)
    pairs = int(alike_UU.sum())
    if scores_UU.shape != (size, size) or not 2 <= size <= MAX_PERMUTED or not 0 < pairs < size * (size - 1):
        raise ValueError(
            f"A table of {scores_UU.shape} with {pairs} pairs of one kind is not a square of 2 to "
            f"{MAX_PERMUTED} users, of whom some are alike and some are not."
        )
    orders = np.array(list(itertools.permutations(range(size))))
    # with the total fixed, the statistic grows with the sum over pairs of one kind alone
    rows, columns = np.nonzero(alike_UU)
    sums = scores_UU[orders[:, rows], orders[:, columns]].sum(1)
    tolerance = 1e-12 * np.abs(scores_UU).sum()  # ties stay ties whatever the order of summation
    return float((sums >= scores_UU[rows, columns].sum() - tolerance).mean())
