"""A market of specialists in which some servers present what no client signed, to two ledgers at once.

A client asks, gets an answer and signs a payment; the server presents it. A cheating server first presents
something else (``ATTACKS``), then, if that was refused, what it was given. The same presentations go to the
ledger that nodes keep and to the seed's unsigned one. The signed ledger is thrown away half-way and comes
back from its journal.

``blind_swap`` names any other manifest; ``informed_swap`` one that the server is listed for. The seed's leak,
4 of 4,068, is what blind swaps hit by chance if every server is listed for about one specialist in 1,000.
``colluding`` clients sign for work that never was: no signature can tell, so these are counted apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from sharedllm.nodes.settlement.errors import StatementRefused
from sharedllm.nodes.settlement.journal import Memory
from sharedllm.nodes.settlement.royalty import HUNDREDTHS, TRAINER_PERCENT, Payment, Royalties, pay
from sharedllm.nodes.settlement.seed import Unsigned
from sharedllm.nodes.settlement.statements import Signer
from sharedllm.nodes.settlement.trials.parties import name, party

__all__ = ["ATTACKS", "Market", "Takings"]

ATTACKS = (
    "blind_swap",
    "informed_swap",
    "invented_ghost",
    "registered_ghost",
    "replay",
    "renumbered_replay",
    "inflation",
    "redirection",
    "forgery",
    "overdraft",
    "double_spend",
)
_AFTER = ("replay", "renumbered_replay", "double_spend")
_INVENTED = ("forgery", "overdraft")
_DEPOSIT_UNITS = 10**12
_MOST_FEE = 1000
_STRANGERS = 10**6
_KEEP_EVERY = 100


@dataclass
class Takings:
    """What came of a market's presentations. Amounts are in hundredths of a unit.

    ``refused_honest``: payments as clients signed them that were not settled. ``leaked`` and ``unsigned``:
    attacks that were paid, by kind, in our ledger and in the seed's. ``misplaced``: the distance between
    balances and what honest payments alone should have made of them. ``made``: balances less deposits.
    ``same_after_restart``: the journal gave back the same balances. ``stale``: payments of before that were
    presented again after the restart, and how many of them were paid. ``blind_unsigned``: further blind swaps
    that the unsigned ledger paid. ``colluded``: payments for no work; ``colluding_cost``: what coalitions
    lost of their fees, with another's specialist and with their own; ``colluded_share``: of all fees.
    """

    honest: int = 0
    refused_honest: int = 0
    attempts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ATTACKS, 0))
    leaked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ATTACKS, 0))
    unsigned: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ATTACKS, 0))
    reasons: dict[str, int] = field(default_factory=dict)
    misplaced: int = 0
    made: int = 0
    same_after_restart: bool = False
    stale: int = 0
    stale_paid: int = 0
    blind_unsigned: int = 0
    colluded: int = 0
    colluded_refused: int = 0
    colluded_share: float = 0.0
    colluding_cost: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Market:
    """``listed``: specialists that a server offers. ``byzantine``: share of servers and of operations.

    ``collusions``: operations for no work, and ``blind``: swaps offered to the unsigned ledger alone, both
    beside ``operations``.
    """

    specialists: int
    servers: int
    operations: int
    byzantine: float
    collusions: int
    blind: int
    listed: int = 10
    trainers: int = 2500
    clients: int = 2000

    def run(self, seed: int, over: Callable[[range], Iterable[int]] = iter) -> Takings:
        """Let all operations happen; ``over`` may show the progress of the loop."""
        return _Run(self, seed).takings(over)


class _Run:
    def __init__(self, market: Market, seed: int) -> None:
        self._market, self._seed, self._draw = market, seed, random.Random(seed)
        self._clients = [party(seed, n) for n in range(market.clients)]
        self._servers = [name(seed, "server", n) for n in range(market.servers)]
        self._manifests = [name(seed, "manifest", n) for n in range(market.specialists)]
        trainers = [name(seed, "trainer", n) for n in range(market.trainers)]
        self._trainers = {one: self._draw.choice(trainers) for one in self._manifests}
        self._serving = {one: self._draw.sample(self._manifests, market.listed) for one in self._servers}
        self._cheats = [
            party(seed, market.clients + n) for n in range(round(market.byzantine * market.servers))
        ]
        self._friends = [party(seed, market.clients + market.servers + n) for n in range(len(self._cheats))]
        self._ghosts = {one.id: name(seed, "ghost", n) for n, one in enumerate(self._cheats)}
        for one in self._cheats:
            self._trainers[self._ghosts[one.id]] = name(seed, one.id, 0)
            self._serving[one.id] = [*self._draw.sample(self._manifests, market.listed), self._ghosts[one.id]]
        self._journal = Memory()
        self._signed = Royalties(self._trainers, self._journal)
        self._unsigned = Unsigned(self._trainers, {server: set(of) for server, of in self._serving.items()})
        self._due: dict[str, int] = {}
        self._paid = 0
        self._kept: list[Payment] = []
        self._found = Takings()
        for one in (*self._clients, *self._friends):
            self._signed.deposit(one.id, _DEPOSIT_UNITS)
            self._due[one.id] = _DEPOSIT_UNITS * HUNDREDTHS

    def takings(self, over: Callable[[range], Iterable[int]]) -> Takings:
        """Mix honest operations, attacks and collusions evenly; restart half-way; compare all balances."""
        market, found = self._market, self._found
        each = max(1, round(1 / market.byzantine)) if market.byzantine else market.operations + 1
        for number in over(range(market.operations)):
            if number % each == each - 1:
                self._attack(ATTACKS[number // each % len(ATTACKS)])
            else:
                self._honest(self._payment(self._draw.choice(self._servers)))
            if number == market.operations // 2:
                self._restart()
        self._collude(market.collusions)
        found.blind_unsigned = self._blind(market.blind)
        parties = self._due.keys() | self._signed.balances.keys()
        found.misplaced = sum(
            abs(self._due.get(one, 0) - self._signed.balances.get(one, 0)) for one in parties
        )
        found.made = sum(self._signed.balances.values()) - HUNDREDTHS * self._signed.deposited_units
        return found

    def _restart(self) -> None:
        before = self._signed.balances
        self._signed = Royalties(self._trainers, self._journal)
        self._found.same_after_restart = self._signed.balances == before
        for payment in self._kept:
            self._found.stale += 1
            self._found.stale_paid += self._present(payment)

    def _payment(self, server: str, client: Signer | None = None) -> Payment:
        """What a client signs for an answer."""
        manifest = self._draw.choice(self._serving[server][: self._market.listed])
        return pay(client or self._draw.choice(self._clients), server, manifest, self._fee(), self._nonce())

    def _fee(self) -> int:
        return self._draw.randint(1, _MOST_FEE)

    def _nonce(self) -> str:
        return self._draw.randbytes(16).hex()

    def _honest(self, payment: Payment) -> None:
        self._found.honest += 1
        self._found.refused_honest += not self._present(payment)
        if self._found.honest % _KEEP_EVERY == 0:
            self._kept.append(payment)
        self._present_unsigned(payment)
        self._book(payment)

    def _book(self, payment: Payment) -> None:
        royalty = TRAINER_PERCENT * payment.fee_units
        self._paid += HUNDREDTHS * payment.fee_units
        for one, amount in (
            (payment.client, -HUNDREDTHS * payment.fee_units),
            (self._trainers[payment.manifest], royalty),
            (payment.server, HUNDREDTHS * payment.fee_units - royalty),
        ):
            self._due[one] = self._due.get(one, 0) + amount

    def _present(self, payment: Payment) -> bool:
        try:
            self._signed.settle(payment)
        except StatementRefused as refused:
            self._found.reasons[refused.reason] = self._found.reasons.get(refused.reason, 0) + 1
            return False
        return True

    def _present_unsigned(self, payment: Payment) -> bool:
        try:
            self._unsigned.settle(payment.nonce, payment.manifest, payment.server, payment.fee_units)
        except StatementRefused:
            return False
        return True

    def _attack(self, kind: str) -> None:
        """Present something that no client signed; what a client did sign must still be settled."""
        cheat = self._draw.randrange(len(self._cheats))
        server = self._draw.choice(self._servers) if kind == "redirection" else self._cheats[cheat].id
        given = self._payment(server, self._friends[cheat] if kind == "double_spend" else None)
        if kind in _AFTER:
            self._honest(given)
        false = self._falsify(kind, given, cheat)
        self._found.attempts[kind] += 1
        self._found.leaked[kind] += self._present(false)
        self._found.unsigned[kind] += self._present_unsigned(false)
        if kind not in (*_AFTER, *_INVENTED):
            self._honest(given)

    def _falsify(self, kind: str, given: Payment, cheat: int) -> Payment:
        signer, draw = self._cheats[cheat], self._draw
        match kind:
            case "blind_swap":
                return replace(given, manifest=self._other(self._manifests, given.manifest))
            case "informed_swap":
                return replace(given, manifest=self._other(self._serving[signer.id], given.manifest))
            case "invented_ghost":
                return replace(given, manifest=draw.randbytes(32).hex())
            case "registered_ghost":
                return replace(given, manifest=self._ghosts[signer.id])
            case "replay":
                return given
            case "renumbered_replay":
                return replace(given, nonce=self._nonce())
            case "inflation":
                return replace(given, fee_units=given.fee_units + draw.randint(1, _MOST_FEE))
            case "redirection":
                return replace(given, server=signer.id)
            case "forgery":
                invented = replace(given, nonce=self._nonce())
                wrong = signer.sign(invented.body) if draw.random() < 0.5 else draw.randbytes(64).hex()
                return replace(invented, signature=wrong)
            case "double_spend":
                other = draw.choice(self._servers)
                return pay(self._friends[cheat], other, given.manifest, given.fee_units, given.nonce)
        # overdraft: a key that anybody can make, and no deposit
        stranger = party(self._seed, _STRANGERS + cheat)
        return pay(stranger, signer.id, given.manifest, given.fee_units, self._nonce())

    def _other(self, among: list[str], than: str) -> str:
        return self._draw.choice([one for one in self._draw.sample(among, 2) if one != than])

    def _blind(self, count: int) -> int:
        """How many of so many blind swaps the unsigned ledger pays: enough of them to see a small rate."""
        paid = 0
        for _ in range(count):
            server = self._draw.choice(self._servers)
            swap = self._other(self._manifests, self._draw.choice(self._serving[server]))
            try:
                self._unsigned.settle(self._nonce(), swap, server, self._fee())
            except StatementRefused:
                continue
            paid += 1
        return paid

    def _collude(self, count: int) -> None:
        """Sign for nothing: a cheat's friend pays it, for another's specialist or for one of their own."""
        found = self._found
        fees = {"another's": 0, "own": 0}
        kept = dict(fees)
        for number in range(count):
            cheat, whose = number % len(self._cheats), ("another's", "own")[number % 2]
            server = self._cheats[cheat].id
            manifest = self._ghosts[server] if whose == "own" else self._serving[server][0]
            payment = pay(self._friends[cheat], server, manifest, self._fee(), self._nonce())
            coalition = {payment.client, server, self._trainers[self._ghosts[server]]}
            held = [sum(self._signed.balances.get(one, 0) for one in coalition)]
            found.colluded += 1
            found.colluded_refused += not self._present(payment)
            held.append(sum(self._signed.balances.get(one, 0) for one in coalition))
            self._book(payment)
            fees[whose] += HUNDREDTHS * payment.fee_units
            kept[whose] += HUNDREDTHS * payment.fee_units + held[1] - held[0]
        found.colluding_cost = {
            whose.replace("'", ""): 1 - kept[whose] / fees[whose] for whose in fees if fees[whose]
        }
        found.colluded_share = sum(fees.values()) / self._paid
