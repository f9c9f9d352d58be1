"""Bets: what was claimed, what was registered before it ran, what came out, and what that decided.

A notebook reports numbers (``record``), rules that were hashed before the run judge them (``criteria``), and
a hash-chained ledger keeps the order: register, run, decide.

What must not happen here: a verdict that a flag, a notebook or a hand sets; ``eval``; papermill outside
``runner.child``; torch, so that the catalogue can be read, checked and published without it. All bets rest on
this room.
"""

from __future__ import annotations

from sharedllm.bets.registration import Bet, Catalogue, find_catalogue, load_bet
from sharedllm.bets.result import Result, Series, read_result
from sharedllm.bets.runner import bars, checkpoint, intervals, progress, record, run

__all__ = [
    "Bet",
    "Catalogue",
    "Result",
    "Series",
    "bars",
    "checkpoint",
    "find_catalogue",
    "intervals",
    "load_bet",
    "progress",
    "read_result",
    "record",
    "run",
]
