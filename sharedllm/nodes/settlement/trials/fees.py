"""Every way of splitting a fee that we know of, beside the ledger that nodes keep, over the same fees.

``RULES``, in hundredths of a unit: ``floor`` rounds each royalty down to a unit and gives the server the
rest; ``rounded`` rounds both parts by themselves; ``carried`` hands what a rounding left over to the
trainer's next fee. The seed does not say which it used.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sharedllm.nodes.settlement.errors import StatementRefused
from sharedllm.nodes.settlement.journal import Memory
from sharedllm.nodes.settlement.royalty import HUNDREDTHS, TRAINER_PERCENT, Payment, Royalties, pay
from sharedllm.nodes.settlement.trials.parties import name, party

__all__ = ["RULES", "Fee", "Settled", "Till", "balances", "fees_of"]

_SERVER_PERCENT = HUNDREDTHS - TRAINER_PERCENT


class Fee(NamedTuple):
    """``units`` for an answer by ``server`` with a specialist of ``trainer``."""

    trainer: int
    server: int
    units: int


def _floor(left: dict[int, int], fee: Fee) -> tuple[int, int]:
    royalty = TRAINER_PERCENT * fee.units // HUNDREDTHS * HUNDREDTHS
    return royalty, HUNDREDTHS * fee.units - royalty


def _rounded(left: dict[int, int], fee: Fee) -> tuple[int, int]:
    half = HUNDREDTHS // 2
    royalty, earnings = (
        (percent * fee.units + half) // HUNDREDTHS for percent in (TRAINER_PERCENT, _SERVER_PERCENT)
    )
    return royalty * HUNDREDTHS, earnings * HUNDREDTHS


def _carried(left: dict[int, int], fee: Fee) -> tuple[int, int]:
    owed = TRAINER_PERCENT * fee.units + left.get(fee.trainer, 0)
    left[fee.trainer] = owed % HUNDREDTHS
    royalty = owed - owed % HUNDREDTHS
    return royalty, HUNDREDTHS * fee.units - royalty


RULES: dict[str, Callable[[dict[int, int], Fee], tuple[int, int]]] = {
    "floor": _floor,
    "rounded": _rounded,
    "carried": _carried,
}


def balances(rule: str, fees: Sequence[Fee]) -> dict[str, int]:
    """What a rule leaves with each trainer (``t0``, …) and server (``s0``, …), in hundredths of a unit."""
    left: dict[int, int] = {}
    kept: dict[str, int] = {}
    for fee in fees:
        royalty, earnings = RULES[rule](left, fee)
        for who, amount in ((f"t{fee.trainer}", royalty), (f"s{fee.server}", earnings)):
            kept[who] = kept.get(who, 0) + amount
    return kept


def fees_of(draw: random.Random, trainers: int, servers: int, most_units: int) -> list[Fee]:
    """Every fee from 1 to ``most_units`` once, each for some trainer and server."""
    return [
        Fee(draw.randrange(trainers), draw.randrange(servers), units) for units in range(1, most_units + 1)
    ]


@dataclass(frozen=True)
class Settled:
    """What the ledger made of presentations; ``wrong_splits`` are those that are not 30 and 70 hundredths."""

    balances: dict[str, int]
    refused: int
    wrong_splits: int
    made: int


class Till:
    """A ledger with some trainers and servers, and payments that one client signed for ``fees``."""

    def __init__(self, seed: int, fees: Sequence[Fee]) -> None:
        client = party(seed, 0)
        self._client, self._deposit = client.id, sum(fee.units for fee in fees)
        self._names = {name(seed, "trainer", fee.trainer): f"t{fee.trainer}" for fee in fees}
        self._names |= {name(seed, "server", fee.server): f"s{fee.server}" for fee in fees}
        self._trainers = {
            name(seed, "manifest", fee.trainer): name(seed, "trainer", fee.trainer) for fee in fees
        }
        self.payments = [
            pay(
                client,
                name(seed, "server", fee.server),
                name(seed, "manifest", fee.trainer),
                fee.units,
                f"{n:032x}",
            )
            for n, fee in enumerate(fees)
        ]

    def settle(self, presented: Sequence[Payment], restart_every: int = 0) -> Settled:
        """Present payments to a new ledger, which comes back from its journal every so often."""
        journal = Memory()
        ledger = Royalties(self._trainers, journal)
        ledger.deposit(self._client, self._deposit)
        refused = wrong = 0
        for number, payment in enumerate(presented, 1):
            try:
                split = ledger.settle(payment)
            except StatementRefused:
                refused += 1
            else:
                fee = payment.fee_units
                wrong += split != (TRAINER_PERCENT * fee, _SERVER_PERCENT * fee)
            if restart_every and number % restart_every == 0:
                ledger = Royalties(self._trainers, journal)
        kept = {self._names[one]: amount for one, amount in ledger.balances.items() if one in self._names}
        made = sum(ledger.balances.values()) - HUNDREDTHS * ledger.deposited_units
        return Settled(kept, refused, wrong, made)
