"""Populations that put trust to the test: what bets and tests run, in a simulator or over plain numbers.

What must not happen here: anything that serves people; a rule of its own: what is tried is ``nodes.trust``.
Bets that rest on it: b066 (revocation), b074 (places), b086 (other federations), b088 (reputation).
"""

from __future__ import annotations

from sharedllm.nodes.trust.trials.expulsion import Course, Expulsion
from sharedllm.nodes.trust.trials.federations import (
    DAY_S,
    FORGERIES,
    Believer,
    Federation,
    Gullible,
    forge,
    fork,
)
from sharedllm.nodes.trust.trials.market import RULES, Market
from sharedllm.nodes.trust.trials.zones import Tally, World

__all__ = [
    "DAY_S",
    "FORGERIES",
    "RULES",
    "Believer",
    "Course",
    "Expulsion",
    "Federation",
    "Gullible",
    "Market",
    "Tally",
    "World",
    "forge",
    "fork",
]
