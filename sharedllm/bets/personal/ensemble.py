"""What adapters say together: the combiner's mixture of their losses, document by document.

A mixture of next-token distributions needs of each only what it gave to the token that came, and that is the
loss that ``scored`` keeps; so an ensemble costs no pass of a model that its members did not make already.

*Covered*: members of one base, weights that start anew with each document. *Not covered*: weights that a
person carries from one document to the next; the price of serving N members, which is N passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sharedllm.combiner import Weights, mixture

__all__ = ["Ensemble", "ensemble"]


@dataclass(frozen=True)
class Ensemble:
    """``nats_T``: the mixture's loss of each token; ``share_N``: each member's mean weight before a token."""

    nats_T: NDArray[np.float64]
    share_N: NDArray[np.float64]


def ensemble(nats: ArrayLike, documents: Sequence[str], weights: Weights) -> Ensemble:
    """Mix members' losses ``nats_NT`` under weights that start anew with each document.

    ``documents`` names each token's. Raises ``ValueError`` where lengths differ, ``BadMixture`` where members
    and weights do.
    """
    a_NT = -torch.as_tensor(np.asarray(nats, dtype=np.float64))
    if a_NT.ndim != 2 or a_NT.shape[1] != len(documents):
        raise ValueError(f"Losses of shape {tuple(a_NT.shape)} need as many documents, not {len(documents)}.")
    nats_T = torch.empty(a_NT.shape[1], dtype=torch.float64)
    total_N = torch.zeros(len(a_NT), dtype=torch.float64)
    names_T = np.array(documents)
    for name in dict.fromkeys(documents):
        at_T = torch.as_tensor(np.flatnonzero(names_T == name))
        logw_NT = weights.run(a_NT[:, at_T])
        nats_T[at_T] = -mixture(a_NT[:, at_T], logw_NT)
        total_N += logw_NT.exp().sum(1)
    return Ensemble(nats_T.numpy(), (total_N / len(documents)).numpy())
