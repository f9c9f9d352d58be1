"""What a bet or a test does to gossip: spreads news under given conditions, in a simulator and in processes.

What must not happen here: anything that serves people; a rule of its own: peers and services are those that
nodes run.
Bets that rest on it: b015 (gossip).
"""

from __future__ import annotations

from sharedllm.nodes.gossip.trials.loopback import Loopback
from sharedllm.nodes.gossip.trials.processes import Members, Process
from sharedllm.nodes.gossip.trials.spreading import (
    Spread,
    bound_rounds,
    churned,
    fixed,
    forgotten,
    parted,
    spread,
)

__all__ = [
    "Loopback",
    "Members",
    "Process",
    "Spread",
    "bound_rounds",
    "churned",
    "fixed",
    "forgotten",
    "parted",
    "spread",
]
