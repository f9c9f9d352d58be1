"""The index of all bets: tables that filter without JavaScript, the tally, and ``catalogue.json``.

Registered bets and the seed's claims that nobody has rerun yet stand in two tables, so that no figure of the
seed can be taken for a finding. *Covered*: everything that the catalogue holds. *Not covered*: sorting.
"""

from __future__ import annotations

from sharedllm.bets.index.cited import cite
from sharedllm.bets.index.document import catalogue_document
from sharedllm.bets.index.entries import CHAPTERS, Entry, SeedClaim, seed_claims, unrun
from sharedllm.bets.index.tables import filters_css, index
from sharedllm.bets.index.tally import false_passes, legend, standings, tally

__all__ = [
    "CHAPTERS",
    "Entry",
    "SeedClaim",
    "catalogue_document",
    "cite",
    "false_passes",
    "filters_css",
    "index",
    "legend",
    "seed_claims",
    "standings",
    "tally",
    "unrun",
]
