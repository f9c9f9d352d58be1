"""What an adapter does to the loss of held-out text, with an interval that knows how few documents there are.

The gain is the fall of the loss per token over all scored tokens, Σ_d g_d / Σ_d n_d over documents d. Its
error counts whole documents, not tokens: with residuals e_d = g_d − gain · n_d, se² = G/(G − 1) · Σ e_d² /
(Σ n_d)² (the ratio estimator, Cochran 1977 §6; clusters as Miller 2411.00640 §2.2), and the interval is
± t(G − 1) · se: at three documents t is 4.3, not 2, so that few documents must agree well.

*Covered*: tokens of one document that resemble each other, documents of unequal length. *Not covered*:
documents that resemble each other; a person who will write differently tomorrow.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedllm.corpus.excerpts import Excerpt
from sharedllm.model import Transformer, token_nats

__all__ = ["Gain", "excerpt_nats", "gain_between"]

# Student's t at 97.5 % for 1 … 9 degrees of freedom; beyond, its expansion in 1/ν is exact to 1e-3
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_Z = 1.959964
_ROWS = 4


@dataclass(frozen=True)
class Gain:
    """The fall of the held-out loss in nats per token, with its 95 % interval over ``documents``."""

    nats: float
    low: float
    high: float
    base_nats: float
    tokens: int
    documents: int

    @property
    def helped(self) -> bool:
        """Say whether the whole interval is a fall."""
        return self.low > 0


@torch.no_grad()
def excerpt_nats(model: Transformer, excerpts: Sequence[Excerpt]) -> list[Tensor]:
    """Score every excerpt on its own, in fp32: ``nats_T`` for each.

    Neighbours of one length share a forward pass: with experts, the weights are then read once for several.
    """
    device = model.embed.weight.device
    nats: list[Tensor] = []
    for _, alike in itertools.groupby(excerpts, lambda excerpt: len(excerpt.tokens)):
        rows_BT = torch.tensor([excerpt.tokens for excerpt in alike], device=device)
        for part_BT in torch.split(rows_BT, _ROWS if model.config.experts else 1):
            nats += token_nats(model, part_BT).unbind()
    return nats


def gain_between(excerpts: Sequence[Excerpt], before: Sequence[Tensor], after: Sequence[Tensor]) -> Gain:
    """Compare two scorings of the same excerpts; at least two documents."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for excerpt, one_T, two_T in zip(excerpts, before, after, strict=True):
        name = excerpt.document
        sums[name] = sums.get(name, 0.0) + float((one_T.double() - two_T.double()).sum())
        counts[name] = counts.get(name, 0) + len(one_T)
    clusters, tokens = len(sums), sum(counts.values())
    nats = math.fsum(sums.values()) / tokens
    residual = math.fsum((sums[name] - nats * counts[name]) ** 2 for name in sums)
    half = t_quantile(clusters - 1) * math.sqrt(clusters / (clusters - 1) * residual) / tokens
    base = math.fsum(float(one_T.double().sum()) for one_T in before) / tokens
    return Gain(nats, nats - half, nats + half, base, tokens, clusters)


def t_quantile(freedom: int) -> float:
    """Student's t at 97.5 % (Abramowitz & Stegun 26.7.5 beyond nine degrees of freedom)."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z, v = _Z, float(freedom)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / v + second / v**2 + third / v**3
