"""How sure a number is: paired differences by document, intervals, exact tests, and money won against the
null.

A level alone ("better by 0.1 nats") decides a criterion; what is here goes beside it. Tokens of one document
depend on each other, so the document (the *cluster*) is the unit: everything takes the mean per cluster
first.

What must not happen here: a verdict, or a p-value without its null. Bets: b004 and b037 quote intervals and
e-values.
"""

from __future__ import annotations

from sharedllm.bets.evidence.pairs import (
    Interval,
    bootstrap,
    cluster_means,
    inside,
    permutation_p,
    sign_test,
)
from sharedllm.bets.evidence.wealth import Wealth, e_bh, product, wager, wealth

__all__ = [
    "Interval",
    "Wealth",
    "bootstrap",
    "cluster_means",
    "e_bh",
    "inside",
    "permutation_p",
    "product",
    "sign_test",
    "wager",
    "wealth",
]
