"""Rules over recorded numbers: a small safe language, its two renderings, and the verdict they add up to.

A notebook reports numbers and never judges; what judges is here, and it was fixed before the run.
"""

from __future__ import annotations

from sharedllm.bets.criteria.expression import Expression, Unevaluable, parse
from sharedllm.bets.criteria.verdict import VERDICTS, Judgement, Outcome, Verdict, judge
from sharedllm.bets.criteria.wording import must, quantity, was

__all__ = [
    "VERDICTS",
    "Expression",
    "Judgement",
    "Outcome",
    "Unevaluable",
    "Verdict",
    "judge",
    "must",
    "parse",
    "quantity",
    "was",
]
