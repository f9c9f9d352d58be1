"""Whatever a network and crashes do, books agree on every settled prefix, and no unit is made or lost."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.settlement import (
    HUNDREDTHS,
    WINDOW,
    Account,
    Memory,
    Royalties,
    Signer,
    StatementRefused,
    net,
    pay,
)

steady = settings(deadline=None, max_examples=50)
PARTIES = [Signer(NodeKey(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32))) for n in range(1, 5)]
MANIFESTS = {f"{n:064x}": PARTIES[n % 2].id for n in range(3)}
steps = st.sampled_from(["give", "claim", "answer", "server crash", "client crash", "resend"])


@steady
@given(st.lists(st.tuples(steps, st.integers(0, 10**6)), max_size=60))
def test_books_agree_on_every_settled_prefix_and_settle_when_messages_get_through(schedule):
    disks = (Memory(), Memory())
    server, client = (Account(PARTIES[n], disks[n]) for n in range(2))
    claims, answers, totals = [], [], [0]
    for what, number in schedule:
        if what == "give" and len(server.waiting(client.id)) < WINDOW:
            claims.append(server.give(client.id, number + 1, "00" * 32))
            totals.append(totals[-1] + number + 1)
        elif what == "claim" and claims:  # any that was ever sent: lost, late, repeated, out of order
            claim = claims[number % len(claims)]
            answers.append(client.take(claim, claim.size_bytes))
        elif what == "answer" and answers and answers[number % len(answers)]:
            server.confirm(answers[number % len(answers)])
        elif what == "server crash":
            server = Account(PARTIES[0], disks[0])
        elif what == "client crash":
            client = Account(PARTIES[1], disks[1])
        taken = client.taken[server.id].number if server.id in client.taken else 0
        if client.id in server.given:
            book = server.given[client.id]
            assert book.settled_number <= taken <= book.number == len(totals) - 1
            assert book.settled_bytes == totals[book.settled_number]
        if server.id in client.taken:
            assert client.taken[server.id].total_bytes == totals[taken]
    for claim in server.waiting(client.id):
        server.confirm(client.take(claim, claim.size_bytes))
    if len(totals) > 1:
        assert server.given[client.id].settled_bytes == client.taken[server.id].total_bytes == totals[-1]
        assert sum(net(server.receipts()).values()) == 0


@steady
@given(
    st.lists(st.tuples(st.integers(1, 10**4), st.integers(0, 2), st.integers(2, 3)), max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=30),
)
def test_payments_in_any_order_with_duplicates_and_restarts_count_once(fees, presented):
    client, journal = PARTIES[3], Memory()
    signed = [
        pay(client, PARTIES[server].id, f"{manifest:064x}", fee_units, f"{nonce:032x}")
        for nonce, (fee_units, manifest, server) in enumerate(fees)
    ]
    ledger, seen = Royalties(MANIFESTS, journal), set()
    ledger.deposit(client.id, 10**6)
    for number, restarts in presented:
        if number < len(signed):
            with nullcontext() if number not in seen else pytest.raises(StatementRefused, match="before"):
                ledger.settle(signed[number])
            seen.add(number)
        if restarts:
            ledger = Royalties(MANIFESTS, journal)
    once = Royalties(MANIFESTS, Memory())
    once.deposit(client.id, 10**6)
    for number in sorted(seen):
        once.settle(signed[number])
    assert ledger.balances == once.balances


@steady
@given(st.lists(st.tuples(st.integers(1, 10**4), st.integers(0, 2), st.integers(2, 3)), max_size=40))
def test_fees_are_split_exactly_and_nothing_is_made_or_lost(fees):
    ledger = Royalties(MANIFESTS, Memory())
    client = PARTIES[3]
    ledger.deposit(client.id, 10**6)
    royalties, paid = dict.fromkeys(MANIFESTS.values(), 0), dict.fromkeys(MANIFESTS.values(), 0)
    for nonce, (fee_units, manifest, server) in enumerate(fees):
        trainer = MANIFESTS[f"{manifest:064x}"]
        split = ledger.settle(pay(client, PARTIES[server].id, f"{manifest:064x}", fee_units, f"{nonce:032x}"))
        assert split.royalty + split.earnings == HUNDREDTHS * fee_units
        royalties[trainer] += split.royalty
        paid[trainer] += fee_units
        assert royalties[trainer] == 30 * paid[trainer]
    assert sum(ledger.balances.values()) == HUNDREDTHS * ledger.deposited_units
