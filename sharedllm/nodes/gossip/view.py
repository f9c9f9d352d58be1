"""Whom a node knows: a small changing part of the network, and a few that it lost sight of.

With each exchange two nodes tell each other of themselves and of a few contacts, each with the time since
that node last spoke for itself; of what both know each keeps the freshest (the *healer* of Jelasity et al.,
ACM TOCS 2007). So whoever is gone is soon forgotten, and every view is a random part of the whole.
The partner is drawn at random, which is the choice that the bounds on spreading are about. Contacts that did
not answer go to an *attic* that is asked now and then, without which two halves that were parted long enough
would never find each other again.

Addresses are hints: whoever dials checks the certificate. *Covered*: sizes are bounded whatever is offered;
nodes that are gone are forgotten after ``_TRIES`` vain calls. *Not covered*: members who offer only each
other, or nodes that don't exist, and call them fresh (an eclipse), beyond the seeds, which are never
forgotten; against that ``service`` calls members by their leases as well.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter

__all__ = ["AGE_S", "SAMPLE", "SIZE", "Contact", "Sample", "View"]

SIZE = 24
SAMPLE = 8
AGE_S = 65_535
_ATTIC = 64
_TRIES = 16
_ATTIC_SHARE = 1 / 8
# of each node's exchanges; the seeds are few, and everybody's
_SEED_SHARE = 1 / 128


@dataclass(frozen=True, slots=True)
class Contact:
    """A node and where it is said to listen for gossip."""

    id: str
    host: str
    port: int


Sample = tuple[tuple[Contact, float], ...]  # with seconds since that node spoke for itself


class View:
    """Up to ``SIZE`` contacts besides ``me``; ``seeds`` are asked when nobody else is left, and rarely."""

    __slots__ = ("_attic", "_known", "_me", "_random", "_seeds")

    def __init__(self, me: Contact, draw: random.Random, seeds: Iterable[Contact] = ()) -> None:
        self._me, self._random = me, draw
        self._seeds = tuple(seed for seed in seeds if seed.id != me.id)
        self._known: dict[str, tuple[Contact, float]] = {}  # when it spoke for itself, in our time
        self._attic: dict[str, tuple[Contact, int]] = {}

    def seed(self, contact: Contact) -> None:
        """Ask ``contact``, too, when nobody else is left."""
        if contact.id != self._me.id:
            self._seeds = (*[seed for seed in self._seeds if seed.id != contact.id], contact)

    @property
    def contacts(self) -> tuple[Contact, ...]:
        """Whom it knows now."""
        return tuple(contact for contact, _ in self._known.values())

    def partner(self) -> Contact | None:
        """Whom to call: anybody known, now and then one that was lost; None if nobody is known."""
        if not self._known:
            lost = [*self._seeds, *[contact for contact, _ in self._attic.values()]]
            return self._random.choice(lost) if lost else None
        draw = self._random.random()
        if self._attic and draw < _ATTIC_SHARE:
            return self._random.choice([contact for contact, _ in self._attic.values()])
        # who knows few may be on an island that nobody else knows of
        if self._seeds and draw > 1 - (_SEED_SHARE if len(self._known) >= SIZE // 2 else _ATTIC_SHARE):
            return self._random.choice(self._seeds)
        pool = list(self._known.values())
        return pool[int(self._random.random() * len(pool))][0]

    def sample(self, besides: str, now: float) -> Sample:
        """Up to ``SAMPLE`` known contacts at random, none of them ``besides``."""
        pool = list(self._known.values())
        draw, size, taken = self._random.random, len(pool), min(SAMPLE, len(pool))
        for i in range(taken):
            j = i + int(draw() * (size - i))
            pool[i], pool[j] = pool[j], pool[i]
        return tuple([(contact, now - born) for contact, born in pool[:taken] if contact.id != besides])

    def merge(self, partner: Contact, offered: Sample, now: float) -> None:
        """A partner spoke, and offered contacts: keep the freshest of all."""
        known, mine = self._known, self._me.id
        if self._attic:
            self._attic.pop(partner.id, None)
        if partner.id != mine:  # a copied state folder calls under this node's own name
            known[partner.id] = partner, now
        for contact, age_s in offered:
            if contact.id == mine or contact.id in self._attic:
                continue
            born, old = now - age_s, known.get(contact.id)
            if old is None or old[1] < born:
                known[contact.id] = contact, born
        if len(known) > SIZE:
            freshest = sorted(known.values(), key=_BORN, reverse=True)[:SIZE]
            self._known = {each[0].id: each for each in freshest}

    def missed(self, contact: Contact) -> None:
        """A contact did not answer: out of the view, into the attic, and out of that after some tries."""
        self._known.pop(contact.id, None)
        tries = self._attic.pop(contact.id, (contact, 0))[1] + 1
        if tries < _TRIES:
            if len(self._attic) >= _ATTIC:
                del self._attic[self._random.choice(list(self._attic))]
            self._attic[contact.id] = contact, tries

    def drop(self, id: str) -> None:
        """Forget a contact altogether, because it was expelled or sends what it must not."""
        self._known.pop(id, None)
        self._attic.pop(id, None)


_BORN = itemgetter(1)
