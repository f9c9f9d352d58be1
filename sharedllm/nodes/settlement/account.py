"""One node's account of bytes: what it gave, what it took, and what both sides have signed.

A server writes a claim to its journal, then sends it, and sends it again until it is acknowledged. A client
takes claims in order, each once, compares the size with the bytes that it counted itself, writes, and then
acknowledges. So at every moment, for every pair, *acknowledged at the server ≤ taken at the client ≤ claimed
by the server*, all three on one chain of hashes; when messages get through at last, all three are equal.

Two parties can't sign at the same instant, so one of them is always ahead (fair exchange needs a third
party: Even & Yacobi 1980; Pagnini & Gärtner 1999). Here it is the client, who has the bytes; what a server
can lose to a client that never acknowledges is ``WINDOW`` transfers.

*Covered*: lost, repeated, reordered, delayed and forged messages; crashes between any two steps; claims for
more than came; two claims with the last number. *Not covered*: a client that acknowledges nothing (it is
served ``WINDOW`` transfers, then none); a node that returns with an older disk. Bets b011, b067, b101.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sharedllm.nodes.settlement.errors import CreditSpent, JournalBroken, StatementRefused
from sharedllm.nodes.settlement.journal import Entry, Journals
from sharedllm.nodes.settlement.statements import Signer
from sharedllm.nodes.settlement.transfers import ORIGIN, Acknowledgement, Claim, Receipt

__all__ = ["WINDOW", "Account", "Given", "Taken"]

WINDOW = 32


@dataclass
class Given:
    """A server's book of one client: the chain's end, what waits for an acknowledgement, and the last one."""

    number: int = 0
    total_bytes: int = 0
    head: str = ORIGIN
    settled: Receipt | None = None
    waiting: deque[Claim] = field(default_factory=deque)

    @property
    def settled_number(self) -> int:
        """The last transfer that both sides signed."""
        return self.settled.claim.number if self.settled else 0

    @property
    def settled_bytes(self) -> int:
        """The bytes up to there."""
        return self.settled.claim.total_bytes if self.settled else 0


@dataclass
class Taken:
    """A client's book of one server: the last claim it took, its answer, and claims that came too early."""

    last: Claim | None = None
    answer: Acknowledgement | None = None
    early: dict[int, Claim] = field(default_factory=dict)
    repeated: int = 0

    @property
    def number(self) -> int:
        """How many transfers were taken."""
        return self.last.number if self.last else 0

    @property
    def total_bytes(self) -> int:
        """The bytes of all of them."""
        return self.last.total_bytes if self.last else 0


class Account:
    """The books of the party that ``signer`` is, as its journal tells them.

    Raises ``JournalBroken`` if the journal is another party's or does not add up.
    """

    def __init__(self, signer: Signer, journal: Journals) -> None:
        self.id = signer.id
        self.given: dict[str, Given] = {}
        self.taken: dict[str, Taken] = {}
        self._signer, self._journal = signer, journal
        self._replay()

    def give(self, client: str, size_bytes: int, content: str) -> Claim:
        """Claim one more transfer to ``client``: journalled, signed, and due to be sent.

        Raises ``CreditSpent`` while ``WINDOW`` claims wait for an acknowledgement, ``StatementRefused`` for a
        size or name that can't be, ``JournalBroken`` if the journal refuses; no claim is made then.
        """
        book = self.given.get(client, Given())
        if len(book.waiting) >= WINDOW:
            raise CreditSpent(
                f"{client[:16]}… has {len(book.waiting)} transfers that it did not acknowledge yet; it gets "
                "the next one after it does."
            )
        total_bytes = book.total_bytes + size_bytes
        claim = Claim(self.id, client, book.number + 1, size_bytes, total_bytes, content, book.head)
        claim = claim.signed(self._signer)
        self._journal.append(Entry("given", claim.to_bytes()))
        self._keep_given(claim)
        return claim

    def waiting(self, client: str) -> tuple[Claim, ...]:
        """The claims to send again, oldest first."""
        return tuple(self.given[client].waiting) if client in self.given else ()

    def take(self, claim: Claim, size_bytes: int) -> Acknowledgement | None:
        """Take a transfer of which ``size_bytes`` arrived; give the answer, None while one is missing.

        A claim that was taken before is counted once, and answered as before. Raises ``StatementRefused``
        for a claim that is forged, for another client, for another size, off the chain or too far ahead.
        """
        if claim.client != self.id or claim.server == self.id:
            raise StatementRefused(
                "party", f"This claim is for {claim.client[:16]}…, not for {self.id[:16]}…."
            )
        book = self.taken.get(claim.server, Taken())
        if claim.number <= book.number:
            return self._again(book, claim)
        if claim.number > book.number + WINDOW:
            raise StatementRefused(
                "order", f"Claim {claim.number} came, but {book.number} was the last; {WINDOW} may be open."
            )
        claim.check_signature()
        if claim.size_bytes != size_bytes:
            raise StatementRefused(
                "size",
                f"{claim.size_bytes:,} bytes are claimed and {size_bytes:,} arrived; none are signed for.",
            )
        book.early[claim.number] = claim
        run = _follow(book)
        self.taken[claim.server] = book
        if not run:
            return None
        try:
            self._journal.append(*(Entry("taken", one.to_bytes()) for one in run))
        except JournalBroken:
            book.early.update({one.number: one for one in run})
            raise
        book.last = run[-1]
        book.answer = self._answer(book.last)
        return book.answer

    def confirm(self, said: Acknowledgement) -> int:
        """Take in a client's acknowledgement; give how many transfers it settled (0 if it is an old one).

        Raises ``StatementRefused`` for one that is forged or of no claim of ours.
        """
        book = self.given.get(said.client)
        if said.server != self.id or book is None or said.number > book.number:
            raise StatementRefused("party", f"This acknowledges claim {said.number}, which was never made.")
        if said.number <= book.settled_number:
            return 0
        receipt = Receipt(book.waiting[said.number - book.settled_number - 1], said)
        receipt.check_match()
        said.check_signature()
        self._journal.append(Entry("confirmed", said.to_bytes()))
        return _settle(book, receipt)

    def receipts(self) -> list[Receipt]:
        """What this node can prove that it gave: the latest receipt of each client."""
        return [book.settled for book in self.given.values() if book.settled]

    def _again(self, book: Taken, claim: Claim) -> Acknowledgement | None:
        if claim.number == book.number and book.last is not None and claim.id != book.last.id:
            claim.check_signature()
            raise StatementRefused(
                "fork", f"{claim.server[:16]}… signed two different claims with the number {claim.number}."
            )
        book.repeated += 1
        return book.answer

    def _answer(self, claim: Claim) -> Acknowledgement:
        said = Acknowledgement(claim.server, claim.client, claim.number, claim.total_bytes, claim.id)
        return said.signed(self._signer)

    def _keep_given(self, claim: Claim) -> None:
        book = self.given.setdefault(claim.client, Given())
        book.number, book.total_bytes, book.head = claim.number, claim.total_bytes, claim.id
        book.waiting.append(claim)

    def _replay(self) -> None:
        kinds: dict[str, Callable[[bytes], None]] = {
            "given": self._replay_given,
            "taken": self._replay_taken,
            "confirmed": self._replay_confirmed,
        }
        try:
            for kind, body in self._journal.entries():
                kinds[kind](body)
        except (KeyError, IndexError, StatementRefused) as error:
            raise JournalBroken(
                "This journal does not hold the books of this node in order; it is another node's, or was "
                "changed by hand. Restore it: the node can't prove anything without it."
            ) from error
        for book in self.taken.values():
            if book.last is not None:
                book.answer = self._answer(book.last)

    def _replay_given(self, body: bytes) -> None:
        claim = Claim.from_bytes(body)
        book = self.given.get(claim.client, Given())
        _check_next(claim, book.number, book.total_bytes, book.head, claim.server == self.id)
        self._keep_given(claim)

    def _replay_taken(self, body: bytes) -> None:
        claim = Claim.from_bytes(body)
        book = self.taken.setdefault(claim.server, Taken())
        head = book.last.id if book.last else ORIGIN
        _check_next(claim, book.number, book.total_bytes, head, claim.client == self.id)
        book.last = claim

    def _replay_confirmed(self, body: bytes) -> None:
        said = Acknowledgement.from_bytes(body)
        book = self.given[said.client]
        receipt = Receipt(book.waiting[said.number - book.settled_number - 1], said)
        receipt.check_match()
        _settle(book, receipt)


def _follow(book: Taken) -> list[Claim]:
    """Take the claims that now follow each other out of those that came early; refuse one off the chain."""
    run: list[Claim] = []
    number, total_bytes, head = book.number, book.total_bytes, book.last.id if book.last else ORIGIN
    while number + 1 in book.early:
        claim = book.early.pop(number + 1)
        try:
            _check_next(claim, number, total_bytes, head, True)
        except StatementRefused:
            if run:
                break  # those before it count
            raise
        run.append(claim)
        number, total_bytes, head = claim.number, claim.total_bytes, claim.id
    return run


def _check_next(claim: Claim, number: int, total_bytes: int, head: str, ours: bool) -> None:
    expected = (number + 1, total_bytes + claim.size_bytes, head)
    if not ours or (claim.number, claim.total_bytes, claim.previous) != expected:
        raise StatementRefused(
            "order",
            f"Claim {claim.number} does not follow claim {number}: its total or its chain is another.",
        )


def _settle(book: Given, receipt: Receipt) -> int:
    settled = receipt.claim.number - book.settled_number
    for _ in range(settled):
        book.waiting.popleft()
    book.settled = receipt
    return settled
