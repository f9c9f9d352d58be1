"""What the front page repeats of the catalogue is what the catalogue says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sharedllm.bets import find_catalogue
from sharedllm.bets.ledger import Ledger, registered, verdict

ROOT = Path(__file__).parents[2]
CATALOGUE = find_catalogue(ROOT)
BETS = {bet.id: bet for bet in CATALOGUE.bets()}
EVENTS = Ledger(CATALOGUE.ledger).read()
REGISTERED = sorted(bet for bet in BETS if registered(EVENTS, bet))
ROWS = {
    row[2]: row
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and len(row := [cell.strip() for cell in line.strip("|").split("|")]) == 4
}


def test_the_readme_opens_with_the_two_commands() -> None:
    first = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[1:3]
    assert [line.split("#")[0].strip() for line in first] == ["make demo", "make test"]


@pytest.mark.parametrize("bet", REGISTERED)
def test_every_registered_bet_stands_in_the_readme_with_its_verdicts(bet: str) -> None:
    expected = [
        f"{regime}: {verdict(EVENTS, bet, regime).value}" for regime in BETS[bet].registration.regimes
    ]
    assert re.split(r" · ", ROWS[bet][3]) == expected


@pytest.mark.parametrize("bet", REGISTERED)
def test_the_readme_names_a_room_that_the_bet_exercises(bet: str) -> None:
    assert ROWS[bet][1].strip("`") in BETS[bet].editorial.rooms
