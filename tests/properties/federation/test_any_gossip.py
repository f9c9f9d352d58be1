"""For every message, order of arrival and offer: one reading, one directory, and a view of bounded size."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from sharedllm.nodes.gossip import BadEntry, BadMessage, Contact, Contents, Entry, Kind, Peer, Quotas, View
from sharedllm.nodes.gossip.contents import BUCKET_BYTES
from sharedllm.nodes.gossip.messages import Buckets, Delta, Digests, Message, Same, Sync, decode, encode
from sharedllm.nodes.gossip.view import SAMPLE, SIZE

NOW = 20.0
QUOTAS = Quotas(entries=64, per_issuer={Kind.LEASE: 1, Kind.MANIFEST: 2, Kind.VOTE: 3})
ME = Contact("00" * 16, "127.0.0.1", 1)


def exactly(count: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=count, max_size=count)


contacts = st.builds(
    Contact,
    exactly(16).map(bytes.hex),
    st.sampled_from(["127.0.0.1", "::1", "attic.example", "a" * 63]),
    st.integers(1, 65_535),
)
samples = st.lists(st.tuples(contacts, st.integers(0, 65_535).map(float)), max_size=SAMPLE).map(tuple)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind, withdrawn = draw(st.sampled_from(Kind)), draw(st.booleans())
    return Entry(
        kind,
        draw(exactly(32)),
        b"" if kind is Kind.LEASE else draw(st.binary(max_size=64)),
        draw(st.integers(0, 2**64 - 1)),
        draw(st.integers(0, 2**64 - 1)),
        withdrawn,
        b"" if withdrawn else draw(st.binary(max_size=80)),
        draw(exactly(64)),
        draw(st.binary(max_size=80)),
    )


slots = st.lists(exactly(16), max_size=4, unique=True).map(tuple)
digests = slots.flatmap(
    lambda named: st.tuples(
        *[st.tuples(st.just(slot), st.integers(0, 2**64 - 1), exactly(16)) for slot in named]
    )
)
covered = st.none() | st.lists(st.integers(0, 255), max_size=6, unique=True).map(tuple)
buckets = st.dictionaries(st.integers(0, 255), exactly(BUCKET_BYTES), max_size=6)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Sync, contacts, samples, exactly(32)),
    st.builds(Same, samples),
    st.builds(Buckets, samples, buckets),
    st.builds(Digests, samples, covered, digests),
    st.builds(Delta, st.lists(entries(), max_size=3).map(tuple), slots),
)


def refused(data: bytes) -> bool:
    try:
        decode(data)
    except (BadMessage, BadEntry):
        return True
    return False


@settings(max_examples=30)
@given(messages)
def test_every_message_reads_back_as_it_was_written(message: Message) -> None:
    data = encode(message)
    again = decode(data)
    assert encode(again) == data
    assert isinstance(message, Delta) or again == message


@settings(max_examples=15)
@given(messages)
def test_every_message_cut_short_or_gone_on_with_is_refused(message: Message) -> None:
    data = encode(message)
    assert all(refused(data[:cut]) for cut in range(len(data)))
    assert refused(data + b"\x00")


@settings(max_examples=50)
@given(st.integers(0, 6), st.binary(max_size=300))
def test_any_bytes_are_refused_by_sentence_or_read_within_bounds(kind: int, rest: bytes) -> None:
    data = bytes([kind]) + rest
    tracemalloc.start()
    try:
        if not refused(data):
            assert len(encode(decode(data))) == len(data)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 256 * 1024


@settings(max_examples=25)
@given(messages, st.data())
def test_a_damaged_message_is_refused_by_sentence_or_reads_as_another(
    message: Message, data: st.DataObject
) -> None:
    damaged = bytearray(encode(message))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    if not refused(bytes(damaged)):
        assert encode(decode(bytes(damaged))) != encode(message)


@st.composite
def said(draw: st.DrawFn) -> Entry:
    """An entry of one of a few issuers about one of a few things, so that many meet in one slot."""
    kind = draw(st.sampled_from(Kind))
    key = b"" if kind is Kind.LEASE else bytes([draw(st.integers(0, 7))])
    sequence, expires_s = draw(st.integers(0, 3)), draw(st.integers(15, 40))
    withdrawn, payload = draw(st.booleans()), draw(st.sampled_from([b"a", b"b"]))
    issuer = bytes([draw(st.integers(0, 2))]) * 32
    return Entry(
        kind, issuer, key, sequence, expires_s, withdrawn, b"" if withdrawn else payload, bytes(64), b""
    )


def heard(told: Iterable[Entry]) -> Contents:
    contents = Contents(QUOTAS)
    for entry in told:
        contents.add(entry, NOW)
    return contents


@settings(max_examples=25)
@given(st.lists(said(), max_size=40), st.randoms(use_true_random=False))
def test_in_whatever_order_entries_arrive_nodes_know_the_same(told: list[Entry], draw: random.Random) -> None:
    shuffled = draw.sample(told, len(told))
    assert heard(told).root == heard(shuffled).root


@settings(max_examples=25)
@given(st.tuples(*[st.lists(said(), max_size=20)] * 3))
def test_in_whatever_groups_nodes_meet_they_know_the_same(told: tuple[list[Entry], ...]) -> None:
    one, two, three = map(heard, told)
    assert heard([*heard([*one, *two]), *three]).root == heard([*one, *heard([*two, *three])]).root


@settings(max_examples=25)
@given(st.lists(said(), max_size=40))
def test_what_is_heard_again_is_no_news(told: list[Entry]) -> None:
    contents = heard(told)
    assert not any(contents.add(entry, NOW) for entry in told)


@settings(max_examples=25)
@given(st.lists(st.tuples(said(), st.integers(0, 45)), max_size=60), st.integers(1, 8))
def test_quotas_hold_and_nothing_outlives_its_end(told: list[tuple[Entry, int]], ceiling: int) -> None:
    contents = Contents(Quotas(ceiling, QUOTAS.per_issuer))
    for entry, now in sorted(told, key=lambda each: each[1]):
        contents.forget(now)
        contents.add(entry, now)
        held = Counter((kept.issuer, kept.kind) for kept in contents)
        assert len(contents) == sum(held.values()) <= ceiling
        assert all(count <= QUOTAS.per_issuer[kind] for (_, kind), count in held.items())
        assert all(kept.expires_s > now for kept in contents)


# more than are told at once, without asking which buckets differ
FILLER = [
    Entry(Kind.VOTE, bytes([i % 7 + 9]) * 32, b"%d" % i, 1, 40, False, b"", bytes(64), b"")
    for i in range(300)
]


class _Everybody:
    def check(self, entry: Entry, now: float) -> None:
        return


@settings(max_examples=12)
@given(st.lists(said(), max_size=12), st.lists(said(), max_size=12), st.booleans())
def test_one_exchange_makes_two_nodes_equal(one: list[Entry], other: list[Entry], many: bool) -> None:
    here, there = (Contact(digit * 32, "127.0.0.1", 1) for digit in "ab")
    caller, called = (Peer(me, _Everybody(), random.Random(1)) for me in (here, there))
    for peer, told in ((caller, one), (called, [*other, *(FILLER if many else [])])):
        for entry in told:
            peer.add(entry, NOW)
    message: Message | None = caller.tick(NOW, there)[0][1]
    sender, receiver, turns = caller, called, 0
    while message is not None:
        message = receiver.receive(sender.me.id, decode(encode(message)), NOW)
        sender, receiver, turns = receiver, sender, turns + 1
    assert caller.contents.root == called.contents.root
    assert turns <= 6


offers = st.lists(st.tuples(st.integers(0, 40), st.floats(0, 65_535)), max_size=SAMPLE)
doings = st.tuples(st.sampled_from(["merge", "miss", "drop", "seed"]), st.integers(0, 40), offers)


def numbered(number: int) -> Contact:
    return Contact(f"{number:032x}", "127.0.0.1", 1)


@settings(max_examples=25)
@given(st.lists(doings, max_size=40), st.integers(0, 2**32))
def test_no_offer_overfills_a_view_or_puts_the_node_into_its_own(
    done: list[tuple[str, int, list[tuple[int, float]]]], seed: int
) -> None:
    view = View(ME, random.Random(seed))
    for now, (what, number, offered) in enumerate(done):
        contact = numbered(number)
        if what == "merge":
            view.merge(contact, tuple((numbered(other), age_s) for other, age_s in offered), now)
        elif what == "miss" and (called := view.partner()) is not None:
            view.missed(called)
        elif what == "drop":
            view.drop(contact.id)
        elif what == "seed":
            view.seed(contact)
        known = [each.id for each in view.contacts]
        assert len(known) == len(set(known)) <= SIZE
        assert ME.id not in known
        partner, sample = view.partner(), view.sample(contact.id, now)
        assert partner is None or partner.id != ME.id
        assert len(sample) <= SAMPLE
        assert contact.id not in [each.id for each, _ in sample]
