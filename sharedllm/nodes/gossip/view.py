"""Whom a node knows: a small changing part of the network, and a few that it lost sight of.

Shuffling is Cyclon's (Voulgaris, Gavidia and van Steen 2005): with each exchange two nodes swap a few
contacts, so that the number of pointers to a node stays about the same and every view is soon a random part
of the whole. Two departures: the partner is drawn at random rather than the oldest, which is the choice that
the bounds on spreading are about; and contacts that did not answer go to an *attic* that is asked now and
then, without which two halves that were parted long enough would never find each other again.

Addresses are hints: whoever dials checks the certificate. *Covered*: sizes are bounded whatever is offered;
nodes that are gone are forgotten after ``_TRIES`` vain calls. *Not covered*: members who offer only each
other (an eclipse) beyond the seeds, which are never forgotten.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["SAMPLE", "SIZE", "Contact", "View"]

SIZE = 24
SAMPLE = 8
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


class View:
    """Up to ``SIZE`` contacts besides ``me``; ``seeds`` are asked when nobody else is left, and rarely."""

    __slots__ = ("_attic", "_known", "_me", "_random", "_seeds")

    def __init__(self, me: Contact, draw: random.Random, seeds: Iterable[Contact] = ()) -> None:
        self._me, self._random = me, draw
        self._seeds = tuple(seed for seed in seeds if seed.id != me.id)
        self._known: dict[str, Contact] = {}
        self._attic: dict[str, tuple[Contact, int]] = {}

    @property
    def contacts(self) -> tuple[Contact, ...]:
        """Whom it knows now."""
        return tuple(self._known.values())

    def begin(self) -> tuple[Contact, tuple[Contact, ...]] | None:
        """A partner, taken out of the view, and the contacts to offer to it; None if nobody is known."""
        partner = self._partner()
        if partner is None:
            return None
        self._known.pop(partner.id, None)
        return partner, self.sample(partner.id, SAMPLE - 1)

    def sample(self, besides: str, count: int) -> tuple[Contact, ...]:
        """``count`` known contacts at random, none of them ``besides``."""
        pool = list(self._known.values())
        draw, size, taken = self._random.random, len(pool), min(count, len(pool))
        for i in range(taken):
            j = i + int(draw() * (size - i))
            pool[i], pool[j] = pool[j], pool[i]
        return tuple([contact for contact in pool[:taken] if contact.id != besides])

    def swap(self, partner: Contact, offered: Iterable[Contact], given: Iterable[Contact]) -> None:
        """Take up what a partner offered in the room of what it was given; keep it, too, if there is room."""
        self._attic.pop(partner.id, None)
        known, mine = self._known, self._me.id
        leaving = [contact.id for contact in given]
        for contact in offered:
            if contact.id == mine or contact.id in known:
                continue
            if len(known) >= SIZE:
                while leaving and leaving[-1] not in known:
                    leaving.pop()
                if not leaving:
                    break
                del known[leaving.pop()]
            known[contact.id] = contact
        if len(known) < SIZE and partner.id not in known:
            known[partner.id] = partner

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

    def _partner(self) -> Contact | None:
        draw = self._random.random()
        if self._attic and (not self._known or draw < _ATTIC_SHARE):
            return self._random.choice([contact for contact, _ in self._attic.values()])
        if self._seeds and (not self._known or draw > 1 - _SEED_SHARE):
            return self._random.choice(self._seeds)
        if not self._known:
            return None
        pool = list(self._known.values())
        return pool[int(self._random.random() * len(pool))]
