"""One node's part in gossip, a state machine: it is told the time and what arrived, and says what to send.

Each round a peer calls one partner and the two bring each other up to date (push-pull anti-entropy; Demers
et al. 1987). When nothing differs that costs one comparison. There is no I/O, no clock and no thread in here:
the transport over TLS and the simulator run this same code.

*Covered*: messages that are lost, doubled, late or out of turn; forged and expired entries; a caller in
another's name; an entry that only some still take (its issuer was expelled); a partner with more to tell than
fits (the rest comes later, a random part each time, so that several partners bring different parts). *Not
covered*: a member who withholds what it knows (others tell), or who spends our signature checks; a forged
entry ends the exchange and drops its sender from the view.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator

from sharedllm.nodes.gossip.contents import Contents
from sharedllm.nodes.gossip.entries import Entry, Kind
from sharedllm.nodes.gossip.errors import BadEntry, BadMessage, Unwelcome
from sharedllm.nodes.gossip.membership import Membership
from sharedllm.nodes.gossip.messages import (
    DELTA_BYTES,
    DIGESTS,
    Buckets,
    Delta,
    Digest,
    Digests,
    Message,
    Same,
    Sync,
)
from sharedllm.nodes.gossip.view import Contact, View

__all__ = ["LIFE_CEILING_S", "Peer"]

# with fewer entries than this their digests are sent at once, without asking which buckets differ
_FEW = 256
_MORE = 2
LIFE_CEILING_S = 25 * 3600.0


class Peer:
    """A node that gossips: what it knows (``contents``) and whom (``view``).

    ``membership`` decides whose entries count; ``on_news`` is told of every entry that is new here;
    ``calls`` is how many partners it calls in a round.
    """

    __slots__ = (
        "_called",
        "_calls",
        "_membership",
        "_missed",
        "_on_news",
        "_random",
        "contents",
        "me",
        "view",
    )

    def __init__(
        self,
        me: Contact,
        membership: Membership,
        draw: random.Random,
        *,
        seeds: Iterable[Contact] = (),
        calls: int = 1,
        on_news: Callable[[Entry], object] = lambda entry: None,
    ) -> None:
        self.me, self._membership, self._random, self._on_news = me, membership, draw, on_news
        self.contents = Contents()
        self.view = View(me, draw, seeds)
        self._called: dict[str, Contact] = {}
        self._calls, self._missed = calls, 0

    def add(self, entry: Entry, now: float) -> bool:
        """Keep an entry if it is news; whether it was.

        Raises ``BadEntry`` when its issuer is no member or did not sign it.
        """
        if entry.expires_s > now + LIFE_CEILING_S or not self.contents.takes(entry, now):
            return False
        self._membership.check(entry, now)
        if kept := self.contents.add(entry, now):
            self._on_news(entry)
        return kept

    def live(self, kind: Kind, now: float) -> Iterator[Entry]:
        """The entries of a kind that hold now: neither withdrawn nor expired."""
        return (
            entry
            for entry in self.contents
            if entry.kind is kind and not entry.withdrawn and entry.expires_s > now
        )

    def tick(self, now: float, first: Contact | None = None) -> list[tuple[Contact, Sync]]:
        """Begin a round: whom to call, and the first word to each; nobody if nobody is known.

        ``first`` is called instead of one that the view would choose. It calls ``calls`` partners,
        and one more for each that has not answered since the round before, up
        to ``_MORE``; those count as unreachable.
        """
        for contact in self._called.values():
            self.view.missed(contact)
        self._missed += len(self._called)
        calls, self._missed = self._calls + min(_MORE, self._missed), 0
        self._called.clear()
        self.contents.forget(now)
        begun = []
        for number in range(calls):
            partner = first if number == 0 and first is not None else self.view.partner()
            if partner is not None and partner.id not in self._called:
                self._called[partner.id] = partner
                begun.append((partner, Sync(self.me, self.view.sample(partner.id, now), self.contents.root)))
        return begun

    def unreachable(self, id: str) -> None:
        """A called partner can't be reached; no need to wait for the next round."""
        if id in self._called:
            self.view.missed(self._called.pop(id))
            self._missed += 1

    def receive(self, sender: str, message: Message, now: float) -> Message | None:
        """Take in what node ``sender`` (as the transport proved it) said; the answer to it, if there is one.

        Raises ``BadMessage`` or ``BadEntry``; the sender is then dropped from the view.
        """
        try:
            match message:
                case Sync():
                    return self._answer(sender, message, now)
                case Delta(entries, wants):
                    self._take(entries, now)
                    return Delta(self._told(wants), ()) if wants else None
                case _:
                    return self._compare(sender, message, now)
        except (BadEntry, BadMessage):
            self.view.drop(sender)
            raise

    def _answer(self, sender: str, sync: Sync, now: float) -> Message:
        """Answer a first word."""
        if sync.caller.id != sender:
            raise BadMessage(f"Node {sender} called in the name of {sync.caller.id}.")
        given = self.view.sample(sender, now)
        self.view.merge(sync.caller, sync.sample, now)
        contents = self.contents
        if contents.root == sync.root:
            return Same(given)
        if len(contents) <= _FEW:
            return Digests(given, None, tuple([_digest(entry) for entry in contents]))
        return Buckets(given, dict(contents.buckets))

    def _compare(self, sender: str, message: Same | Buckets | Digests, now: float) -> Message | None:
        """Go on with an exchange; only the one that was called may offer contacts."""
        called = self._called.pop(sender, None)
        if called is not None:
            self.view.merge(called, message.sample, now)
        elif message.sample:
            return None
        if isinstance(message, Buckets):
            return self._differing(message.hashes)
        if isinstance(message, Digests):
            return self._difference(message)
        return None

    def _differing(self, theirs: dict[int, bytes]) -> Digests:
        """The digests of buckets that differ, as many whole buckets as fit, a random choice of them."""
        ours = self.contents.buckets
        differing = [index for index in {*ours, *theirs} if ours.get(index) != theirs.get(index)]
        self._random.shuffle(differing)
        covered: list[int] = []
        items: list[Digest] = []
        for index in differing:
            rows = [_digest(entry) for entry in self.contents.within([index])]
            if len(items) + len(rows) > DIGESTS and covered:
                break
            covered.append(index)
            items += rows[: DIGESTS - len(items)]
        return Digests((), tuple(covered), tuple(items))

    def _difference(self, message: Digests) -> Delta | None:
        """What the other lacks, and what this node does; None when that is nothing."""
        theirs = {slot: (sequence, version) for slot, sequence, version in message.items}
        mine = self.contents if message.covered is None else self.contents.within(message.covered)
        lacking = [entry for entry in mine if theirs.get(entry.slot, _NEVER) < entry.rank]
        wants = [slot for slot, rank in theirs.items() if self.contents.wants(slot, rank)]
        if not lacking and not wants:
            return None
        return Delta(self._fitting(lacking), tuple(wants))

    def _told(self, wants: tuple[bytes, ...]) -> tuple[Entry, ...]:
        found = (self.contents.get(slot) for slot in wants)
        return self._fitting([entry for entry in found if entry is not None])

    def _fitting(self, entries: list[Entry]) -> tuple[Entry, ...]:
        """A random part of ``entries`` that fits a message."""
        if len(entries) > 1:
            self._random.shuffle(entries)
        size, count = 0, 0
        for entry in entries[:DIGESTS]:
            size += len(entry.payload) + len(entry.certificate) + _ENVELOPE_BYTES
            if size > DELTA_BYTES:
                break
            count += 1
        return tuple(entries[:count])

    def _take(self, entries: tuple[Entry, ...], now: float) -> None:
        for entry in entries:
            # whoever has not heard of an expulsion yet passes the expelled one's word on in good faith
            with contextlib.suppress(Unwelcome):
                self.add(entry, now)


_NEVER = (-1, b"")
_ENVELOPE_BYTES = 256


def _digest(entry: Entry) -> Digest:
    sequence, version = entry.rank
    return entry.slot, sequence, version
