"""Every combiner is weights and an order: one interface over the mixture, the power means and the pruned.

``Combiner(Uniform(n))`` is the seed's, ``Combiner(FixedShare(n, alpha))`` the default for documents,
``Combiner(weights, order=0.5)`` a power mean, ``Combiner(Pruned(weights, floor))`` asks only who matters.
Which inequalities hold is a matter of the order: 1 to 6 of ``bounds`` at order 1, 7 below it, and those of
``pruning``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sharedllm.combiner.mixture import mixture
from sharedllm.combiner.product import power_mean
from sharedllm.combiner.weights import Weights
from sharedllm.errors import BadMixture

__all__ = ["Combiner"]


@dataclass
class Combiner:
    """One distribution of many, token by token; ``order`` 1 is the mixture, 0 the geometric mean."""

    weights: Weights
    order: float = 1.0

    def start(self) -> Combiner:
        """Give a combiner of its own that begins where this one stands: what one request carries along."""
        return Combiner(self.weights.start(), self.order)

    def joint(self, logp_NV: Tensor) -> Tensor:
        """Combine what the specialists say of the next token: ``m_V``, in nats.

        Rows of specialists without weight are not read, so they may hold anything. Raises ``BadMixture`` for
        what does not fit, and for an order outside [0, 1].
        """
        logw_N = self.weights.logw_N
        if logp_NV.ndim != 2 or len(logp_NV) != len(logw_N):
            raise BadMixture(
                f"Expected log-probabilities of {len(logw_N)} specialists, logp_NV; got shape "
                f"{tuple(logp_NV.shape)}."
            )
        heard_N = logw_N > -torch.inf
        if not bool(heard_N.all()):
            logp_NV, logw_N = logp_NV[heard_N], logw_N[heard_N]
        if self.order == 1.0:
            return mixture(logp_NV, logw_N)
        return power_mean(logp_NV, self.order, logw_N)

    def observe(self, logp_NV: Tensor, token: int) -> Tensor:
        """Learn from the token that came; give the next token's weights. Raises as ``Weights.observe``."""
        return self.weights.observe(logp_NV[:, token])
