"""A fee is split between who trained a specialist and who served it, and nothing is made, lost or rounded.

The client who asked signs a ``Payment`` that names manifest, server and fee, so that no server can change
them afterwards, and each is paid once. Fees are whole units and come out of what a client deposited before;
balances are kept in hundredths of a unit, of which a fee of f units is 30 · f royalty and 70 · f earnings. So
no rounding is left to be gamed: neither by many small fees, nor by the order in which payments are presented.

*Covered*: a changed manifest, server, fee or client; a manifest that nobody published; a payment presented
again, by anyone, also after a crash; two payments with one nonce; fees beyond the deposit. *Not covered*,
because no signature can: a server that computes with another model than the client asked for and is paid for
that (audits of tokens are for it); a client and a server who agree on work that never was. Those move the
client's own deposit to the server and a trainer: nobody else loses, but counting payments is no measure of
use. Who a manifest's trainer is, is the directory's word. Bets b014, b068.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from sharedllm.nodes.settlement.errors import JournalBroken, StatementRefused
from sharedllm.nodes.settlement.journal import Entry, Journals
from sharedllm.nodes.settlement.statements import MOST, Signer, Statement, digits, whole
from sharedllm.store import canonical_json

__all__ = ["HUNDREDTHS", "TRAINER_PERCENT", "Payment", "Royalties", "Split", "pay"]

HUNDREDTHS = 100
TRAINER_PERCENT = 30


@dataclass(frozen=True)
class Payment(Statement):
    """``client`` pays ``fee_units`` for one answer that ``server`` made with the specialist ``manifest``.

    ``manifest`` is the SHA-256 of the specialist's signed manifest; ``nonce`` is drawn anew for each answer.
    """

    SCHEMA: ClassVar[str] = "sharedllm-payment-1"

    client: str = digits(64)
    server: str = digits(64)
    manifest: str = digits(64)
    fee_units: int = whole(1)
    nonce: str = digits(32)
    signature: str = field(default="")

    @property
    def author(self) -> str:
        """The client."""
        return self.client


def pay(signer: Signer, server: str, manifest: str, fee_units: int, nonce: str) -> Payment:
    """Sign a payment by the client that ``signer`` is."""
    return Payment(signer.id, server, manifest, fee_units, nonce).signed(signer)


class Split(NamedTuple):
    """What became of a fee, in hundredths of a unit: the trainer's part and the server's."""

    royalty: int
    earnings: int


class Royalties:
    """The ledger of one federation, as its journal tells it; ``balances`` by party, in hundredths of a unit.

    ``trainers`` names the publisher of every manifest in the directory. Raises ``JournalBroken`` for a
    journal that does not add up.
    """

    def __init__(self, trainers: Mapping[str, str], journal: Journals) -> None:
        self.balances: dict[str, int] = {}
        self.deposited_units = 0
        self._trainers, self._journal = trainers, journal
        self._paid: dict[tuple[str, str], str] = {}
        self._replay()

    def deposit(self, client: str, units: int) -> None:
        """Credit what a client brought; raises ``StatementRefused`` for no positive whole number of units."""
        if type(units) is not int or not 0 < units <= MOST:
            raise StatementRefused(
                "form", f"A deposit is a whole number of units from 1 to 2^53, not {units}."
            )
        self._journal.append(Entry("deposit", canonical_json({"client": client, "units": units})))
        self._deposit(client, units)

    def settle(self, payment: Payment) -> Split:
        """Pay trainer and server out of the client's deposit, once.

        Raises ``StatementRefused``, with nothing moved, for a payment that is forged or altered
        (``signature``), was settled before (``replay``), names no published manifest (``ghost``), or exceeds
        what the client has (``deposit``).
        """
        known = self._paid.get((payment.client, payment.nonce))
        if known is not None:
            same = "It" if known == payment.id else "Another payment"
            raise StatementRefused(
                "replay", f"{same} with the nonce {payment.nonce} was settled before; each is paid once."
            )
        trainer = self._trainers.get(payment.manifest)
        if trainer is None:
            raise StatementRefused(
                "ghost", f"No manifest {payment.manifest[:16]}… was published here, so nobody earns by it."
            )
        payment.check_signature()
        left = self.balances.get(payment.client, 0)
        if payment.fee_units * HUNDREDTHS > left:
            raise StatementRefused(
                "deposit",
                f"The fee is {payment.fee_units:,} units and the client has {left / HUNDREDTHS:,.2f}; "
                "deposit more.",
            )
        # the trainer too, lest a directory that changed since makes a replay pay somebody else
        body = canonical_json({"payment": payment.to_bytes().decode(), "trainer": trainer})
        self._journal.append(Entry("payment", body))
        return self._pay(payment, trainer)

    def _deposit(self, client: str, units: int) -> None:
        self.deposited_units += units
        self.balances[client] = self.balances.get(client, 0) + units * HUNDREDTHS

    def _pay(self, payment: Payment, trainer: str) -> Split:
        royalty = TRAINER_PERCENT * payment.fee_units
        split = Split(royalty, HUNDREDTHS * payment.fee_units - royalty)
        self._paid[payment.client, payment.nonce] = payment.id
        for party, amount in (
            (payment.client, -HUNDREDTHS * payment.fee_units),
            (trainer, split.royalty),
            (payment.server, split.earnings),
        ):
            self.balances[party] = self.balances.get(party, 0) + amount
        return split

    def _replay(self) -> None:
        try:
            for kind, body in self._journal.entries():
                given = json.loads(body)
                if kind == "deposit":
                    self._deposit(given["client"], given["units"])
                else:
                    self._pay(Payment.from_bytes(given["payment"].encode()), given["trainer"])
        except (ValueError, KeyError, TypeError, StatementRefused) as error:
            raise JournalBroken(
                "This journal holds something else than deposits and payments; restore it first."
            ) from error
