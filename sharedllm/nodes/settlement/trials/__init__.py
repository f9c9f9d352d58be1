"""Populations that put the ledgers to the test: simulated nodes and markets, and processes that are killed.

What must not happen here: anything that serves people; a rule of its own: what is tried are the accounts,
journals and royalties that nodes keep, and the seed's beside them.
Bets that rest on it: b011, b067 and b101 (bytes), b014 and b068 (royalties).
"""

from __future__ import annotations

from sharedllm.nodes.settlement.trials.books import OneSidedBooks, ResentBooks, SignedBooks
from sharedllm.nodes.settlement.trials.clock import Conditions
from sharedllm.nodes.settlement.trials.fees import RULES, Fee, Settled, Till, balances, fees_of
from sharedllm.nodes.settlement.trials.losses import Gap, Transfer, exchange, lose_each, transfers_of
from sharedllm.nodes.settlement.trials.market import ATTACKS, Market, Takings
from sharedllm.nodes.settlement.trials.processes import Survived, Trial
from sharedllm.nodes.settlement.trials.traffic import Outcome, Traffic

__all__ = [
    "ATTACKS",
    "RULES",
    "Conditions",
    "Fee",
    "Gap",
    "Market",
    "OneSidedBooks",
    "Outcome",
    "ResentBooks",
    "Settled",
    "SignedBooks",
    "Survived",
    "Takings",
    "Till",
    "Traffic",
    "Transfer",
    "Trial",
    "balances",
    "exchange",
    "fees_of",
    "lose_each",
    "transfers_of",
]
