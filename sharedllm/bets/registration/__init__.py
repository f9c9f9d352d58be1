"""A bet as it was registered: claim, parameters, regimes, controls and criteria, and the hash that fixes
them.

``[registration]`` of a ``bet.toml`` is hashed (SHA-256 of its canonical JSON); ``[editorial]`` is not, so
that titles and links stay free. Every key is known: a mistyped one is refused with the name that was probably
meant.

*Covered*: unknown, missing and mistyped keys, dates and infinities, a default that its own type refuses.
*Not covered*: whether a claim is worth testing, or its criteria fair; that is what the review of a
registration is for.
"""

from __future__ import annotations

from sharedllm.bets.registration.bet import (
    LEVELS,
    TIERS,
    TYPES,
    Bet,
    Control,
    Criterion,
    Editorial,
    Overrides,
    Parameter,
    Plan,
    Registration,
    Value,
)
from sharedllm.bets.registration.catalogue import Catalogue, find_catalogue
from sharedllm.bets.registration.document import load_bet, parse_bet

__all__ = [
    "LEVELS",
    "TIERS",
    "TYPES",
    "Bet",
    "Catalogue",
    "Control",
    "Criterion",
    "Editorial",
    "Overrides",
    "Parameter",
    "Plan",
    "Registration",
    "Value",
    "find_catalogue",
    "load_bet",
    "parse_bet",
]
