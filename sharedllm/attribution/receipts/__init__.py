"""Receipts: what a node signed and logged about one answer, to be verified offline by anyone.

What must not happen in this room: torch, a network, a prompt in clear, or a verification that trusts the
machine which issued the receipt.

Bets: b017 (each audited answer's receipt is issued and verified).
"""

from sharedllm.attribution.receipts.answer import Answer, Token
from sharedllm.attribution.receipts.receipt import acknowledged, issue
from sharedllm.attribution.receipts.records import (
    BILLION,
    MOST_SPECIALISTS,
    Chain,
    Head,
    answers,
    prompt_hash,
)
from sharedllm.attribution.receipts.verify import Verified, log_name, verify

__all__ = [
    "BILLION",
    "MOST_SPECIALISTS",
    "Answer",
    "Chain",
    "Head",
    "Token",
    "Verified",
    "acknowledged",
    "answers",
    "issue",
    "log_name",
    "prompt_hash",
    "verify",
]
