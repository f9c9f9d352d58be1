"""Worker momentum: each worker's vectors averaged over rounds, before they are aggregated.

Averaging over rounds shrinks what honest workers differ by through chance, and with it the room to hide in
(Karimireddy et al. 2012.10333: with it, centered clipping bears liars who act over many rounds).

*Covered*: a worker that is away for some rounds, and one that sends NaN, which stays that round's NaN.
*Not covered*: a worker under a new name, who starts anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sharedllm.errors import BadAggregate

__all__ = ["WorkerMomentum"]


class WorkerMomentum:
    """The running mean of each named worker's vectors: m ← β m + (1 − β) x, from its first vector on.

    Raises ``BadAggregate`` for a β outside [0, 1).
    """

    def __init__(self, beta: float = 0.9) -> None:
        if not 0 <= beta < 1:
            raise BadAggregate(f"Worker momentum has a β in [0, 1), not {beta}.")
        self._beta = beta
        self._means: dict[str, Tensor] = {}

    def step(self, workers: Sequence[str], vectors_KP: Tensor) -> Tensor:
        """Take this round's vectors and give the workers' momenta, ``momenta_KP``.

        A vector that is not finite is handed on as it is, for the rule to set aside, and leaves its sender's
        momentum alone. Raises ``BadAggregate`` where names and vectors differ in number.
        """
        if len(set(workers)) != len(vectors_KP):
            raise BadAggregate(
                f"{len(vectors_KP)} vectors need as many different workers, not {list(workers)}."
            )
        momenta = []
        for name, vector_P in zip(workers, vectors_KP, strict=True):
            if bool(vector_P.isfinite().all()):
                before_P = self._means.get(name)
                after_P = vector_P.clone() if before_P is None else before_P.lerp(vector_P, 1 - self._beta)
                self._means[name] = after_P
                momenta.append(after_P)
            else:
                momenta.append(vector_P)
        return torch.stack(momenta)
