"""A transfer is claimed by who sent it and acknowledged by who received it; only both together count.

Claims of one server to one client are numbered from 1 and chained: each carries the total so far and the hash
of the claim before it. So one acknowledgement, of a claim's hash, stands for the whole prefix, and no earlier
claim can be exchanged for another. ``Receipt`` is the pair, and needs nobody's book to be checked.

*Covered*: altered or forged halves, halves that don't belong together. *Not covered*: whether bytes were
worth anything; two parties that agree on transfers that never were (they can only credit one of themselves
at the expense of the other).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from sharedllm.nodes.settlement.errors import StatementRefused
from sharedllm.nodes.settlement.statements import Statement, digits, whole

__all__ = ["ORIGIN", "Acknowledgement", "Claim", "Receipt", "net"]

ORIGIN = "0" * 64


@dataclass(frozen=True)
class Claim(Statement):
    """``server`` sent ``size_bytes`` with the SHA-256 ``content`` to ``client``, its transfer ``number``."""

    SCHEMA: ClassVar[str] = "sharedllm-claim-1"

    server: str = digits(64)
    client: str = digits(64)
    number: int = whole(1)
    size_bytes: int = whole(1)
    total_bytes: int = whole(1)
    content: str = digits(64)
    previous: str = digits(64)
    signature: str = field(default="")

    @property
    def author(self) -> str:
        """The server."""
        return self.server


@dataclass(frozen=True)
class Acknowledgement(Statement):
    """``client`` received everything up to ``number``, ``total_bytes``; ``claim`` is that claim's id."""

    SCHEMA: ClassVar[str] = "sharedllm-acknowledgement-1"

    server: str = digits(64)
    client: str = digits(64)
    number: int = whole(1)
    total_bytes: int = whole(1)
    claim: str = digits(64)
    signature: str = field(default="")

    @property
    def author(self) -> str:
        """The client."""
        return self.client


@dataclass(frozen=True)
class Receipt:
    """The last claim that was acknowledged, and its acknowledgement: what one server gave one client."""

    claim: Claim
    acknowledgement: Acknowledgement

    def check_match(self) -> None:
        """Raises ``StatementRefused`` unless both halves are of the same transfers."""
        claim, said = self.claim, self.acknowledgement
        if (said.server, said.client, said.number, said.total_bytes, said.claim) != (
            claim.server,
            claim.client,
            claim.number,
            claim.total_bytes,
            claim.id,
        ):
            raise StatementRefused(
                "order", "This acknowledgement is of another claim than the one beside it."
            )

    def verify(self) -> None:
        """Raises ``StatementRefused`` unless both halves belong together and both parties signed."""
        self.check_match()
        self.claim.check_signature()
        self.acknowledgement.check_signature()


def net(receipts: list[Receipt]) -> dict[str, int]:
    """Bytes given less bytes taken, by party, over the latest receipt of each pair: they sum to 0 exactly.

    Raises ``StatementRefused`` as ``Receipt.verify`` does.
    """
    latest: dict[tuple[str, str], Receipt] = {}
    for receipt in receipts:
        receipt.verify()
        pair = (receipt.claim.server, receipt.claim.client)
        if pair not in latest or latest[pair].claim.number < receipt.claim.number:
            latest[pair] = receipt
    balances: dict[str, int] = {}
    for (server, client), receipt in latest.items():
        balances[server] = balances.get(server, 0) + receipt.claim.total_bytes
        balances[client] = balances.get(client, 0) - receipt.claim.total_bytes
    return balances
