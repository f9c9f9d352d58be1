"""A person's own text becomes an adapter on their own machine, and they are told whether it helped.

What must not happen here: choosing anything on the text that judges; cutting held-out text out of the middle
of what was learnt from; writing the text, or the names of its files, into the adapter; a report that claims
help where the interval holds zero.

Bets that rest on this room: none decides by it; b037 and b046 say what to expect of each method.
"""

from __future__ import annotations

from sharedllm.adapters.personal.courses import quick_products
from sharedllm.adapters.personal.enough import Parts, parts, refuse_tiny
from sharedllm.adapters.personal.fitting import Personal, fit_text
from sharedllm.adapters.personal.gain import Gain
from sharedllm.adapters.personal.reading import Reading, Skipped, read_texts
from sharedllm.adapters.personal.report import report, verdict
from sharedllm.adapters.personal.search import Plan, Search, Trial
from sharedllm.adapters.personal.splitting import Splits, split

__all__ = [
    "Gain",
    "Parts",
    "Personal",
    "Plan",
    "Reading",
    "Search",
    "Skipped",
    "Splits",
    "Trial",
    "fit_text",
    "parts",
    "quick_products",
    "read_texts",
    "refuse_tiny",
    "report",
    "split",
    "verdict",
]
