"""Two accounts, and every way in which a message between them can be lost, repeated, altered or forged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sharedllm.nodes.settlement import (
    WINDOW,
    Account,
    CreditSpent,
    Entry,
    Journal,
    JournalBroken,
    Memory,
    Receipt,
    StatementRefused,
    net,
)

CONTENT = "ab" * 32


class Full(Memory):
    """A journal whose disk is full."""

    def append(self, *entries: Entry) -> None:
        raise JournalBroken("no space")


@pytest.fixture
def pair(party):
    return Account(party(1), Memory()), Account(party(2), Memory())


def test_a_transfer_that_both_sides_signed_is_in_both_books(pair):
    server, client = pair
    assert server.confirm(client.take(server.give(client.id, 700, CONTENT), 700)) == 1
    assert server.given[client.id].settled_bytes == client.taken[server.id].total_bytes == 700


def test_one_acknowledgement_settles_all_transfers_before_it(pair):
    server, client = pair
    answers = [client.take(server.give(client.id, 10 + i, CONTENT), 10 + i) for i in range(4)]
    assert server.confirm(answers[-1]) == 4
    assert server.confirm(answers[1]) == 0
    assert server.waiting(client.id) == ()


def test_a_claim_that_comes_again_is_counted_once_and_answered_as_before(pair):
    server, client = pair
    claim = server.give(client.id, 700, CONTENT)
    first = client.take(claim, 700)
    assert client.take(claim, 700) == first
    assert (client.taken[server.id].total_bytes, client.taken[server.id].repeated) == (700, 1)


def test_claims_that_come_in_another_order_are_taken_in_theirs(pair):
    server, client = pair
    claims = [server.give(client.id, size, CONTENT) for size in (1, 20, 300)]
    assert client.take(claims[2], 300) is None
    assert client.take(claims[1], 20) is None
    assert client.take(claims[0], 1).total_bytes == 321


def test_a_claim_for_more_than_arrived_is_not_signed(pair):
    server, client = pair
    with pytest.raises(StatementRefused, match="701 bytes are claimed and 700 arrived"):
        client.take(server.give(client.id, 701, CONTENT), 700)


def test_a_claim_that_was_changed_on_the_way_is_refused(pair):
    server, client = pair
    claim = server.give(client.id, 700, CONTENT)
    with pytest.raises(StatementRefused, match="forged, or a field was changed"):
        client.take(replace(claim, size_bytes=800, total_bytes=800), 800)


def test_a_claim_for_somebody_else_is_refused(pair, party):
    server, client = pair
    with pytest.raises(StatementRefused, match="not for"):
        client.take(server.give(party(3).id, 700, CONTENT), 700)


def test_two_claims_with_one_number_are_told_from_a_repetition(pair, party):
    server, client = pair
    client.take(server.give(client.id, 700, CONTENT), 700)
    twin = Account(party(1), Memory())
    with pytest.raises(StatementRefused, match="two different claims"):
        client.take(twin.give(client.id, 800, CONTENT), 800)


def test_a_claim_off_the_chain_is_refused(pair, party):
    server, client = pair
    client.take(server.give(client.id, 700, CONTENT), 700)
    twin = Account(party(1), Memory())
    twin.give(client.id, 800, CONTENT)
    with pytest.raises(StatementRefused, match="does not follow"):
        client.take(twin.give(client.id, 5, CONTENT), 5)


def test_a_client_that_acknowledges_nothing_gets_a_window_and_no_more(pair):
    server, client = pair
    for _ in range(WINDOW):
        server.give(client.id, 1, CONTENT)
    with pytest.raises(CreditSpent, match="did not acknowledge"):
        server.give(client.id, 1, CONTENT)


def test_a_claim_too_far_ahead_is_not_kept(pair):
    server, client = pair
    claims = [server.give(client.id, 1, CONTENT) for _ in range(WINDOW)]
    far = replace(claims[-1], number=WINDOW + 1)
    with pytest.raises(StatementRefused, match="may be open"):
        client.take(far, 1)


def test_an_acknowledgement_of_what_was_never_claimed_is_refused(pair):
    server, client = pair
    said = client.take(server.give(client.id, 700, CONTENT), 700)
    with pytest.raises(StatementRefused, match="never made"):
        server.confirm(replace(said, number=2))


def test_a_forged_or_altered_acknowledgement_settles_nothing(pair):
    server, client = pair
    said = client.take(server.give(client.id, 700, CONTENT), 700)
    for forged in (replace(said, signature="00" * 64), replace(said, total_bytes=1)):
        with pytest.raises(StatementRefused):
            server.confirm(forged)
    assert server.given[client.id].settled_bytes == 0


def test_a_full_disk_changes_no_book(party):
    server, client = Account(party(1), Full()), Account(party(2), Full())
    with pytest.raises(JournalBroken):
        server.give(client.id, 700, CONTENT)
    assert not server.given
    claim = Account(party(1), Memory()).give(client.id, 700, CONTENT)
    with pytest.raises(JournalBroken):
        client.take(claim, 700)
    assert client.taken[server.id].total_bytes == 0


def test_books_come_back_from_their_journals_after_a_crash(tmp_path, party):
    disks = [tmp_path / "server.db", tmp_path / "client.db"]
    server, client = (Account(party(n + 1), Journal(disk)) for n, disk in enumerate(disks))
    said = client.take(server.give(client.id, 700, CONTENT), 700)
    server.confirm(said)
    client.take(server.give(client.id, 50, CONTENT), 50)
    again = [Account(party(n + 1), Journal(disk)) for n, disk in enumerate(disks)]
    assert again[0].given == server.given
    assert again[1].taken == client.taken


def test_a_journal_of_another_node_is_refused(pair, party):
    journal = Memory()
    Account(party(1), journal).give(party(2).id, 700, CONTENT)
    with pytest.raises(JournalBroken, match="another node's"):
        Account(party(3), journal)


def test_a_journal_with_an_acknowledgement_of_another_claim_is_refused(party):
    journal = Memory()
    server, client = Account(party(1), journal), Account(party(2), Memory())
    said = client.take(server.give(client.id, 700, CONTENT), 700)
    journal.append(Entry("confirmed", replace(said, total_bytes=1).to_bytes()))
    with pytest.raises(JournalBroken, match="changed by hand"):
        Account(party(1), journal)


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    (tmp_path / "journal.db").write_bytes(b"not a database" * 100)
    with pytest.raises(JournalBroken, match="could not be"):
        Journal(tmp_path / "journal.db")


def test_balances_of_receipts_sum_to_nothing_and_use_each_pairs_latest(pair):
    server, client = pair
    receipts = []
    for size in (700, 50):
        server.confirm(client.take(server.give(client.id, size, CONTENT), size))
        receipts += server.receipts()
    assert net(receipts) == {server.id: 750, client.id: -750}


def test_a_receipt_of_halves_that_do_not_belong_together_is_refused(pair):
    server, client = pair
    claims = [server.give(client.id, 5, CONTENT) for _ in range(2)]
    said = client.take(claims[0], 5)
    with pytest.raises(StatementRefused, match="another claim"):
        net([Receipt(claims[1], said)])
