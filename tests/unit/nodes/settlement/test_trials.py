"""What the ledgers are put through: that losses, cheats and kills really happen, and what they do."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from sharedllm.nodes.settlement.trials import (
    ATTACKS,
    RULES,
    Conditions,
    Fee,
    Market,
    OneSidedBooks,
    Outcome,
    ResentBooks,
    SignedBooks,
    Till,
    Traffic,
    Trial,
    balances,
    exchange,
    fees_of,
    lose_each,
    transfers_of,
)

LOSSY = Traffic(20, 24, 30, Conditions(0.05, 0.05), overclaimers=0.1, silent=0.1, asleep_s=1800, partners=2)


@pytest.fixture(scope="module")
def signed() -> Outcome:
    return LOSSY.run(SignedBooks, 1)


def test_what_servers_are_credited_with_is_what_clients_booked(signed: Outcome) -> None:
    assert max(signed.drained_drifts) == signed.wrong_bytes == 0


def test_messages_were_lost_and_came_twice(signed: Outcome) -> None:
    assert (signed.lost > 10, signed.duplicates > 10, signed.restarts) == (True, True, 20)


def test_no_duplicate_counts(signed: Outcome) -> None:
    assert signed.duplicates_counted == 0


def test_a_claim_that_came_early_and_was_forgotten_is_no_duplicate() -> None:
    """With these losses and sleepers eight such claims come again and are booked, for the first time."""
    wild = Traffic(6, 6, 60, Conditions(0.3, 0.3), asleep_s=60, partners=1).run(SignedBooks, 0)
    assert (wild.duplicates > 100, wild.duplicates_counted, wild.wrong_bytes) == (True, 0, 0)


def test_restarts_forget_nothing(signed: Outcome) -> None:
    assert signed.forgotten == 0


def test_no_over_claim_is_paid_where_clients_sign(signed: Outcome) -> None:
    assert (signed.overclaims > 10, signed.fraud) == (True, 0)


def test_over_claims_are_paid_where_nobody_signs() -> None:
    assert LOSSY.run(ResentBooks, 1).fraud > 0.1


def test_acknowledgements_mend_loss_without_signatures() -> None:
    assert max(LOSSY.run(ResentBooks, 1).drained_drifts) == 0


def test_the_same_losses_leave_a_one_sided_ledger_apart() -> None:
    assert max(LOSSY.run(OneSidedBooks, 1).drained_drifts) > 0.01


def test_a_one_sided_ledger_is_exact_where_nothing_is_lost() -> None:
    assert max(replace(LOSSY, conditions=Conditions(), asleep_s=0.0).run(OneSidedBooks, 1).drifts) == 0


def test_the_same_seed_gives_the_same_course() -> None:
    assert LOSSY.run(ResentBooks, 5) == LOSSY.run(ResentBooks, 5)


def test_a_silent_client_is_served_a_window_and_no_more() -> None:
    busy = replace(LOSSY, nodes=3, transfers=90, partners=1, silent=1.0, overclaimers=0.0)
    assert busy.run(SignedBooks, 1).silent_transfers == 32


@pytest.mark.parametrize("which", ["claim", "answer"])
def test_one_lost_message_leaves_signed_books_exact(which: str) -> None:
    gap = lose_each(SignedBooks, transfers_of(1, 3, 40), 1, which, 17)
    assert (gap.end_bytes, gap.wrong_bytes) == (0, 0)


def test_one_lost_message_breaks_one_sided_books_by_its_transfer() -> None:
    transfers = transfers_of(1, 3, 40)
    assert lose_each(OneSidedBooks, transfers, 1, "claim", 17).end_bytes == transfers[17].size_bytes


def test_a_loss_in_one_pair_does_to_all_nodes_what_it_does_to_the_pair() -> None:
    transfers = transfers_of(1, 3, 40)
    whole = exchange(OneSidedBooks, transfers, 1, (17, "claim"))
    assert whole == lose_each(OneSidedBooks, transfers, 1, "claim", 17)


def test_rounding_both_parts_by_themselves_makes_units() -> None:
    assert sum(balances("rounded", [Fee(0, 0, 5)]).values()) == 600


def test_rounding_down_pays_no_trainer_of_small_fees() -> None:
    assert balances("floor", [Fee(0, 0, 3)] * 50)["t0"] == 0


def test_carried_remainders_let_a_server_choose_its_moments() -> None:
    timed = [Fee(0, int(moment == "B"), 1) for moment in "AAABAABAAB"]
    assert balances("carried", timed) == {"t0": 300, "s0": 700, "s1": 0}


def test_rules_leave_what_the_ledger_leaves_up_to_rounding() -> None:
    fees = fees_of(random.Random(1), 3, 3, 40)
    till = Till(1, fees)
    exact = till.settle(till.payments).balances
    assert all(abs(balances(rule, fees)[who] - exact[who]) < 40 * 100 for rule in RULES for who in exact)


def test_duplicates_and_restarts_leave_the_same_balances() -> None:
    till = Till(1, fees_of(random.Random(1), 3, 3, 40))
    settled = till.settle(till.payments * 2, restart_every=30)
    assert (settled.balances, settled.refused) == (till.settle(till.payments).balances, 40)


@pytest.fixture(scope="module")
def takings():
    return Market(40, 20, 440, 0.05, 8, 0, listed=4, trainers=5, clients=5).run(3, iter)


def test_every_kind_of_fraud_is_tried(takings) -> None:
    assert takings.attempts == dict.fromkeys(ATTACKS, 2)


def test_no_fraud_is_paid(takings) -> None:
    assert takings.leaked == dict.fromkeys(ATTACKS, 0)


def test_what_clients_signed_is_paid_even_after_a_fraud(takings) -> None:
    assert takings.refused_honest == 0


def test_balances_are_those_of_honest_payments(takings) -> None:
    assert (takings.misplaced, takings.made, takings.same_after_restart) == (0, 0, True)


def test_an_unsigned_ledger_pays_an_informed_swap(takings) -> None:
    assert takings.unsigned["informed_swap"] == 2


def test_colluding_costs_the_royalty_or_nothing(takings) -> None:
    assert takings.colluding_cost == pytest.approx({"anothers": 0.3, "own": 0.0})


@pytest.mark.slow
def test_honest_processes_that_are_killed_settle_every_byte_beside_a_liar(tmp_path: Path) -> None:
    lossy = Conditions(0.05, 0.05, latency_s=0.05)
    found = Trial(tmp_path, 3, 20, lossy, kills=3, kill_every=40, seed=1).run(120)
    assert (found.kills, found.transfers, found.unsettled, found.wrong_bytes) == (3, 80, 0, 0)


@pytest.mark.slow
def test_a_kill_shows_where_journals_are_in_memory(tmp_path: Path) -> None:
    found = Trial(
        tmp_path, 2, 30, Conditions(latency_s=0.05), kills=1, kill_every=40, seed=1, durable=False
    ).run(120)
    assert found.forgotten > 0
