"""Fees that are split, refused, repeated and remembered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sharedllm.nodes.settlement import (
    JournalBroken,
    Memory,
    Payment,
    Royalties,
    StatementRefused,
    Unsigned,
    pay,
)

MANIFEST, OTHER = "aa" * 32, "bb" * 32


@pytest.fixture
def trainers(party):
    return {MANIFEST: party(7).id, OTHER: party(8).id}


@pytest.fixture
def ledger(party, trainers):
    made = Royalties(trainers, Memory())
    made.deposit(party(1).id, 1000)
    return made


def payment(party, fee_units=10, nonce=0, manifest=MANIFEST) -> Payment:
    return pay(party(1), party(2).id, manifest, fee_units, f"{nonce:032x}")


def test_thirty_percent_go_to_the_trainer_and_the_rest_to_the_server(ledger, party):
    assert ledger.settle(payment(party)) == (300, 700)
    assert (ledger.balances[party(7).id], ledger.balances[party(2).id]) == (300, 700)


def test_payments_in_any_order_leave_the_same_balances(party, trainers):
    fees = [payment(party, fee, fee, (MANIFEST, OTHER)[fee % 2]) for fee in range(1, 12)]
    ends = []
    for order in (fees, fees[::-1]):
        made = Royalties(trainers, Memory())
        made.deposit(party(1).id, 1000)
        for one in order:
            made.settle(one)
        ends.append(made.balances)
    assert ends[0] == ends[1]


def test_many_small_fees_give_the_trainer_what_one_large_fee_would(ledger, party):
    for nonce in range(100):
        ledger.settle(payment(party, 1, nonce))
    assert ledger.balances[party(7).id] == 3000


def test_a_payment_is_settled_once(ledger, party):
    ledger.settle(payment(party))
    with pytest.raises(StatementRefused, match="settled before"):
        ledger.settle(payment(party))


def test_a_second_payment_with_the_same_nonce_is_refused(ledger, party):
    ledger.settle(payment(party))
    with pytest.raises(StatementRefused, match="Another payment"):
        ledger.settle(payment(party, 11))


@pytest.mark.parametrize("change", [{"manifest": OTHER}, {"fee_units": 11}, {"server": "cc" * 32}])
def test_what_a_server_changes_after_serving_is_refused(ledger, party, change):
    with pytest.raises(StatementRefused, match="changed after signing"):
        ledger.settle(replace(payment(party), **change))


def test_a_manifest_that_nobody_published_earns_nothing(ledger, party):
    with pytest.raises(StatementRefused, match="published"):
        ledger.settle(payment(party, manifest="cc" * 32))


def test_a_fee_beyond_the_deposit_is_refused(ledger, party):
    with pytest.raises(StatementRefused, match="deposit more"):
        ledger.settle(payment(party, 1001))


def test_nobody_signs_for_another(party):
    with pytest.raises(StatementRefused, match="to sign"):
        Payment(party(1).id, party(2).id, MANIFEST, 10, "00" * 16).signed(party(3))


@pytest.mark.parametrize("units", [0, -1, 1.5, True, 2**54])
def test_a_deposit_of_no_positive_whole_number_is_refused(ledger, party, units):
    with pytest.raises(StatementRefused, match="whole number"):
        ledger.deposit(party(1).id, units)


def test_a_ledger_comes_back_from_its_journal_and_still_refuses_what_was_paid(party, trainers):
    journal = Memory()
    first = Royalties(trainers, journal)
    first.deposit(party(1).id, 100)
    first.settle(payment(party, 7))
    again = Royalties(trainers, journal)
    assert again.balances == first.balances
    with pytest.raises(StatementRefused, match="settled before"):
        again.settle(payment(party, 7))
    assert again.settle(payment(party, 7, 1)) == first.settle(payment(party, 7, 1))


def test_a_journal_of_something_else_is_refused(party, trainers):
    journal = Memory()
    journal.append(("payment", b"{}"))
    with pytest.raises(JournalBroken, match="restore it"):
        Royalties(trainers, journal)


def test_the_unsigned_design_pays_a_swap_to_another_manifest_that_the_server_serves(party, trainers):
    seed = Unsigned(trainers, {party(2).id: {MANIFEST, OTHER}})
    assert seed.settle("1", OTHER, party(2).id, 10) == (300, 700)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"[" * 2000, b"x" * 3000, b'{"schema":"sharedllm-claim-1"}']
)
def test_bytes_that_are_no_payment_are_refused(data):
    with pytest.raises(StatementRefused):
        Payment.from_bytes(data)


def test_a_payment_has_one_form_only(party):
    data = payment(party).to_bytes()
    assert Payment.from_bytes(data) == payment(party)
    with pytest.raises(StatementRefused):
        Payment.from_bytes(data + b" ")
