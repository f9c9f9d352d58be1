"""One node's books under three protocols, behind one face: the seed's, a half-way house, and what nodes run.

``OneSidedBooks``: nothing is acknowledged (the seed's). ``ResentBooks``: a claim is sent again until an
acknowledgement comes, and nobody signs: that mends loss and leaves fraud, since whoever can write down an
acknowledgement has one. ``SignedBooks``: the node's own ``Account`` over a journal that outlives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from sharedllm.nodes.settlement.account import WINDOW, Account
from sharedllm.nodes.settlement.errors import CreditSpent, StatementRefused
from sharedllm.nodes.settlement.journal import Memory
from sharedllm.nodes.settlement.seed import OneSided
from sharedllm.nodes.settlement.statements import Signer
from sharedllm.nodes.settlement.transfers import Acknowledgement, Claim, Receipt

__all__ = ["Books", "OneSidedBooks", "ResentBooks", "SignedBooks"]

_CONTENT = "00" * 32


class Books(Protocol):
    """What a simulation needs of a node's books; claims and answers are the protocol's own."""

    def __init__(self, signer: Signer) -> None: ...

    def give(self, client: str, claimed_bytes: int) -> Any:
        """Claim a transfer; raises ``CreditSpent`` where the protocol stops serving a client."""

    def take(self, server: str, claim: Any, arrived_bytes: int) -> Any:
        """Book a transfer and give the answer to send, or None; raises ``StatementRefused``."""

    def confirm(self, client: str, answer: Any) -> None:
        """Book an answer."""

    def waiting(self, client: str) -> Sequence[Any]:
        """Claims to send again, oldest first."""

    def up(self, client: str) -> tuple[int, int]:
        """Transfers and bytes to this client for which this node asks to be credited."""

    def down(self, server: str) -> tuple[int, int]:
        """Transfers and bytes from this server that this node books as its debt."""

    def restart(self) -> None:
        """Forget all but what is on disk."""

    def forge(self, client: str) -> int:
        """Bytes that this node is credited with for this client if it answers its own claims."""


class OneSidedBooks:
    """The seed's: a column for what was sent, a column for what came."""

    def __init__(self, signer: Signer) -> None:
        self._books = OneSided()
        self._numbers: dict[str, int] = {}
        self._came: dict[str, int] = {}

    def give(self, client: str, claimed_bytes: int) -> Any:
        """Book the upload, and number the claim."""
        self._books.sent(client, claimed_bytes)
        self._numbers[client] = self._numbers.get(client, 0) + 1
        return self._numbers[client], claimed_bytes

    def take(self, server: str, claim: Any, arrived_bytes: int) -> Any:
        """Book the download."""
        self._came[server] = self._came.get(server, 0) + self._books.received(server, claim[0], arrived_bytes)

    def confirm(self, client: str, answer: Any) -> None:
        """Nothing is ever answered."""

    def waiting(self, client: str) -> Sequence[Any]:
        """Nothing waits."""
        return ()

    def up(self, client: str) -> tuple[int, int]:
        """Everything sent, whatever became of it."""
        return self._numbers.get(client, 0), self._books.uploads.get(client, 0)

    def down(self, server: str) -> tuple[int, int]:
        """Everything that came."""
        return self._came.get(server, 0), self._books.downloads.get(server, 0)

    def restart(self) -> None:
        """Both columns are on disk."""

    def forge(self, client: str) -> int:
        """The server's word is enough as it is."""
        return self.up(client)[1]


class ResentBooks:
    """Claims that are sent again until they are acknowledged, without a signature."""

    def __init__(self, signer: Signer) -> None:
        self._claims: dict[str, list[int]] = {}
        self._open: dict[str, set[int]] = {}
        self._came: dict[str, dict[int, int]] = {}

    def give(self, client: str, claimed_bytes: int) -> Any:
        """Number the claim; the same window as ours."""
        waiting = self._open.setdefault(client, set())
        if len(waiting) >= WINDOW:
            raise CreditSpent("Too many transfers wait for an acknowledgement.")
        claims = self._claims.setdefault(client, [])
        claims.append(claimed_bytes)
        waiting.add(len(claims))
        return len(claims), claimed_bytes

    def take(self, server: str, claim: Any, arrived_bytes: int) -> Any:
        """Book what came, once, and answer with the number."""
        number, claimed_bytes = claim
        if claimed_bytes != arrived_bytes:
            raise StatementRefused("size", "More is claimed than arrived.")
        self._came.setdefault(server, {}).setdefault(number, arrived_bytes)
        return number

    def confirm(self, client: str, answer: Any) -> None:
        """Strike a claim off."""
        self._open[client].discard(answer)

    def waiting(self, client: str) -> Sequence[Any]:
        """The claims without an answer."""
        return [(number, self._claims[client][number - 1]) for number in sorted(self._open.get(client, ()))]

    def up(self, client: str) -> tuple[int, int]:
        """What was answered."""
        claims, waiting = self._claims.get(client, []), self._open.get(client, ())
        answered = [size for number, size in enumerate(claims, 1) if number not in waiting]
        return len(answered), sum(answered)

    def down(self, server: str) -> tuple[int, int]:
        """What came."""
        came = self._came.get(server, {})
        return len(came), sum(came.values())

    def restart(self) -> None:
        """All of it is on disk."""

    def forge(self, client: str) -> int:
        """An answer without a signature is as good as the client's own."""
        return sum(self._claims.get(client, []))


class SignedBooks:
    """The account that a node keeps."""

    def __init__(self, signer: Signer) -> None:
        self._signer, self._disk = signer, Memory()
        self.account = Account(signer, self._disk)

    def give(self, client: str, claimed_bytes: int) -> Claim:
        """Claim, journalled and signed."""
        return self.account.give(client, claimed_bytes, _CONTENT)

    def take(self, server: str, claim: Any, arrived_bytes: int) -> Acknowledgement | None:
        """Take in order, once."""
        return self.account.take(claim, arrived_bytes)

    def confirm(self, client: str, answer: Any) -> None:
        """Settle a prefix."""
        self.account.confirm(answer)

    def waiting(self, client: str) -> Sequence[Claim]:
        """The claims without an answer."""
        return self.account.waiting(client)

    def up(self, client: str) -> tuple[int, int]:
        """What the client signed for."""
        book = self.account.given.get(client)
        return (book.settled_number, book.settled_bytes) if book else (0, 0)

    def down(self, server: str) -> tuple[int, int]:
        """What this node signed for."""
        book = self.account.taken.get(server)
        return (book.number, book.total_bytes) if book else (0, 0)

    def restart(self) -> None:
        """Read the journal again, and nothing else."""
        self.account = Account(self._signer, self._disk)

    def forge(self, client: str) -> int:
        """Sign the client's acknowledgement with this node's key, and see what a verifier makes of it."""
        waiting = self.account.waiting(client)
        if waiting:
            last = waiting[-1]
            said = Acknowledgement(last.server, client, last.number, last.total_bytes, last.id)
            said = replace(said, signature=self._signer.sign(said.body))
            try:
                Receipt(last, said).verify()
            except StatementRefused:
                pass
            else:
                return last.total_bytes
        return self.up(client)[1]
