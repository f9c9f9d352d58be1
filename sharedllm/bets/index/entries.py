"""What the index lists: registered bets with their history, and the seed's claims that wait."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sharedllm.bets.ledger import Event, Standing, standing, verdict
from sharedllm.bets.registration import Bet
from sharedllm.bets.result import Result
from sharedllm.errors import BadBet

__all__ = ["CHAPTERS", "Entry", "SeedClaim", "seed_claims", "unrun"]

CHAPTERS = ("foundations", "federation", "training", "adapters", "wire", "transparency", "operating", "open")


@dataclass(frozen=True)
class SeedClaim:
    """A claim of the seed as its public pages state it: figure and verdict are the seed's, not ours."""

    id: str
    slug: str
    chapter: str
    claim: str
    figure: str
    verdict: str
    regimes: tuple[str, ...]
    read: str


@dataclass(frozen=True)
class Entry:
    """A registered bet with its ledger lines, the results that exist (by regime) and its notice, if any."""

    bet: Bet
    events: tuple[Event, ...] = ()
    results: Mapping[str, Result] = field(default_factory=dict)
    notice: str = ""

    def standing(self, regime: str) -> Standing:
        return standing(self.events, self.bet.id, regime)

    def verdict(self, regime: str) -> str:
        """Return the verdict that the ledger holds for ``regime``; a result alone decides nothing."""
        return str(verdict(self.events, self.bet.id, regime))

    def decided_on(self, regime: str) -> str:
        """Return the day of the decision in force, or a dash."""
        days = [e.at_utc[:10] for e in self.events if (e.event, e.regime) == ("decided", regime)]
        return days[-1] if days and self.verdict(regime) != "UNRUN" else "–"


def seed_claims(text: str) -> tuple[SeedClaim, ...]:
    """Read ``catalogue/seed.toml``; raises ``BadBet`` with what does not fit."""
    try:
        rows = tomllib.loads(text)["claim"]
        claims = tuple(SeedClaim(**{**row, "regimes": tuple(row["regimes"])}) for row in rows)
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise BadBet(f"catalogue/seed.toml does not hold a list of claims: {error}.") from None
    strange = sorted({claim.chapter for claim in claims} - set(CHAPTERS))
    if strange:
        raise BadBet(
            f"catalogue/seed.toml names the chapter {strange[0]!r}; known are {', '.join(CHAPTERS)}."
        )
    return claims


def unrun(entries: Sequence[Entry], claims: Iterable[SeedClaim]) -> tuple[SeedClaim, ...]:
    """Return the seed's claims that have no registered bet here."""
    ours = {entry.bet.id for entry in entries}
    return tuple(claim for claim in claims if claim.id not in ours)
