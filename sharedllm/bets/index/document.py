"""The whole catalogue as one JSON document, so that no service has to stay up for it to be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sharedllm.bets.criteria import must
from sharedllm.bets.index.entries import Entry, SeedClaim

__all__ = ["catalogue_document"]


def catalogue_document(entries: Sequence[Entry], claims: Sequence[SeedClaim]) -> dict[str, Any]:
    """Return the whole catalogue as one JSON document."""
    return {
        "schema": "sharedllm/catalogue-1",
        "bets": [_document(entry) for entry in entries],
        "seed_claims": [vars(claim) | {"regimes": list(claim.regimes)} for claim in claims],
    }


def _document(entry: Entry) -> dict[str, Any]:
    about, registration = entry.bet.editorial, entry.bet.registration
    return {
        "id": about.id,
        "title": about.title,
        "chapter": about.chapter,
        "page": f"bets/{entry.bet.folder.name}.html",
        "claim": registration.claim,
        "registration_sha256": registration.sha256,
        "criteria": [
            {
                "level": c.level,
                "name": c.name,
                "rule": c.expression,
                "unit": c.unit,
                "must": must(c.rule, c.unit),
            }
            for c in registration.criteria
        ],
        "controls": [{"name": c.name, "rule": c.expression, "about": c.about} for c in registration.controls],
        "regimes": {
            regime: {"verdict": entry.verdict(regime), "standing": str(entry.standing(regime))}
            for regime in registration.regimes
        },
        "results": {regime: asdict(result) for regime, result in entry.results.items()},
        "events": [{k: v for k, v in vars(e).items() if v is not None} for e in entry.events],
    }
