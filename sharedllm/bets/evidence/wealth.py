"""E-values by betting: how much money a gambler who is offered fair odds by the null would have made.

Wealth that starts at 1 and is bet on bounded differences is a supermartingale under the null, so it reaches
1/α with probability at most α, whenever one stops (Ville). It multiplies over replications. Waudby-Smith &
Ramdas, *Estimating means of bounded random variables by betting* (2010.09686, §4); Shafer 2021 on the
language.

Our symbols to theirs: ``stake`` f is λ·(bound + null), the share of wealth at risk; the mixture over f has
the arcsine prior at Chebyshev nodes, which for coins is exactly the Krichevsky–Trofimov bettor (Orabona & Pál
2016).

*Covered*: bounded, independent differences in any order, optional stopping and continuation. *Not covered*:
an unbounded difference (clip it *before* looking, and say so), a bound chosen from the data, dependent
clusters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharedllm.bets.evidence.pairs import ALTERNATIVES

__all__ = ["Wealth", "e_bh", "product", "wager", "wealth"]

_NODES = 400  # exact for up to 799 coins, and a fine mixture for anything


@dataclass(frozen=True)
class Wealth:
    """Log-wealth after each of T differences; ``1 / e_value`` is a p-value that holds whenever one stops."""

    log_wealth: NDArray[np.float64]

    @property
    def e_value(self) -> float:
        """Wealth at the end; 1 before any bet; infinite where it overflows."""
        return _exp(float(self.log_wealth[-1])) if len(self.log_wealth) else 1.0

    @property
    def trajectory(self) -> list[float]:
        """Wealth after each difference, for a figure."""
        return [_exp(float(value)) for value in self.log_wealth]


def wager(
    differences: ArrayLike, stake: float, *, bound: float, null: float = 0.0, alternative: str = "greater"
) -> Wealth:
    """Wealth of one fixed ``stake`` in [0, 1]: each difference x multiplies it by 1 + stake · (x −
    null)/(bound + null).

    The null says: each mean, given the past, is at most ``null`` (``less``: at least).
    """
    if not 0 <= stake <= 1 or alternative not in ("greater", "less"):
        raise ValueError("A wager has a stake in [0, 1] and the alternative greater or less.")
    gains_T = _gains(differences, bound, null, alternative)
    with np.errstate(divide="ignore"):
        return Wealth(np.cumsum(np.log1p(stake * gains_T)))


def wealth(
    differences: ArrayLike, *, bound: float, null: float = 0.0, alternative: str = "two-sided"
) -> Wealth:
    """Wealth of a mixture of stakes against "the mean is ``null``" (``greater``: at most, ``less``: at least
    ``null``).

    ``differences``: one per cluster, in [−bound, bound]; ``bound`` is fixed before looking. Raises
    ``ValueError`` for one outside, a null outside, or an unknown alternative.
    """
    if alternative not in ALTERNATIVES:
        raise ValueError(f"alternative must be one of {', '.join(ALTERNATIVES)}, not {alternative!r}.")
    nodes = np.cos((2 * np.arange(1, _NODES + 1) - 1) * np.pi / (2 * _NODES))
    stakes = nodes[nodes > 0]
    sides = ["greater", "less"] if alternative == "two-sided" else [alternative]
    logs_ST = np.concatenate(
        [
            np.cumsum(np.log1p(np.outer(stakes, _gains(differences, bound, null, side))), axis=1)
            for side in sides
        ]
    )
    if logs_ST.shape[1] == 0:
        return Wealth(np.zeros(0))
    peak_T = logs_ST.max(axis=0)
    return Wealth(peak_T + np.log(np.exp(logs_ST - peak_T).mean(axis=0)))


def product(e_values: Iterable[float]) -> float:
    """Combine the e-values of independent replications (any number, in any order, decided as one goes)."""
    values = list(e_values)
    if any(not value >= 0 for value in values):
        raise ValueError("An e-value is zero or above.")
    if 0.0 in values:
        return 0.0
    return _exp(math.fsum(math.log(value) for value in values))


def e_bh(e_values: Sequence[float], alpha: float) -> list[bool]:
    """Say which hypotheses e-BH rejects: false discovery rate ≤ ``alpha`` under any dependence.

    Wang & Ramdas, *False discovery rate control with e-values* (2009.02824, §4): reject the k largest for the
    largest k with e₍ₖ₎ ≥ K/(kα).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}.")
    count = len(e_values)
    ranked = sorted(e_values, reverse=True)
    passed = [k for k in range(1, count + 1) if ranked[k - 1] * k * alpha >= count]
    threshold = ranked[passed[-1] - 1] if passed else math.inf
    return [bool(passed) and value >= threshold for value in e_values]


def _gains(differences: ArrayLike, bound: float, null: float, side: str) -> NDArray[np.float64]:
    """What one unit of stake wins on each difference: at worst −1."""
    values_T = np.asarray(differences, dtype=np.float64)
    if values_T.ndim != 1 or not (np.abs(values_T) <= bound).all():
        raise ValueError(f"Each difference must be finite, within ±{bound}; fix the bound before looking.")
    if not abs(null) < bound:
        raise ValueError(f"The null {null} must be inside ±{bound}.")
    sign = 1.0 if side == "greater" else -1.0
    gains_T: NDArray[np.float64] = sign * (values_T - null) / (bound + sign * null)
    return np.maximum(gains_T, -1.0)  # rounding must not stake more than there is


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf
