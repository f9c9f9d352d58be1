"""Federations that verify each other's receipts while links between them are up, cut, and up again.

Every federation publishes a root a day, signed by four of five founders; its receipt keys change every week
and are announced some days before. Time is virtual (seconds); keys, signatures and chains are real.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sharedllm.nodes.identity import NodeKey
from sharedllm.nodes.trust.crossing import Chain, Equivocation, NotBelieved
from sharedllm.nodes.trust.founders import BadRoot, Key, Root, seal, signers

__all__ = ["DAY_S", "FORGERIES", "Believer", "Federation", "Gullible", "Receipt", "forge", "fork"]

DAY_S = 86_400
_WEEK_S = 7 * DAY_S
_GRACE_S = 30 * DAY_S
_FOUNDERS, _THRESHOLD = 5, 4

Receipt = tuple[str, bytes, bytes, float]  # key, message, signature, when it was made
FORGERIES = ("signature", "stranger", "changed", "other", "early", "retired", "future")


def make_key(draw: random.Random) -> NodeKey:
    """A key from a seeded source."""
    return NodeKey(Ed25519PrivateKey.from_private_bytes(draw.randbytes(32)))


class Federation:
    """Founders, weekly keys announced ``notice_s`` before they are used, and a root for each day."""

    def __init__(self, name: str, seed: int, days: int, *, notice_s: int, life_s: int) -> None:
        self.name, self._draw = name, random.Random(f"{name}-{seed}")
        self.founders = [make_key(self._draw) for _ in range(_FOUNDERS)]
        self.keys = [make_key(self._draw) for _ in range(days // 7 + 3)]
        self.stolen_s: dict[int, int] = {}
        self._notice_s, self._life_s, self._days = notice_s, life_s, days
        self.roots: list[Root] = []
        self.publish()

    def steal(self, week: int, at_s: int) -> NodeKey:
        """A week's key is stolen, noticed at once, and dropped from the next root on."""
        self.stolen_s[week] = at_s
        self.publish()
        return self.keys[week]

    def publish(self) -> None:
        """Make all roots anew, as they follow from what is known of keys."""
        self.roots = []
        for day in range(self._days):
            self.roots.append(self._root(day * DAY_S, self.roots[-1] if self.roots else None))

    def latest(self, now_s: float) -> Root:
        """The root of the day."""
        return self.roots[min(int(now_s // DAY_S), len(self.roots) - 1)]

    def receipt(self, at_s: float, message: bytes, key: NodeKey | None = None) -> Receipt:
        """A receipt made at ``at_s`` by the key of that week, or by another."""
        signer = key or self.keys[int(at_s // _WEEK_S)]
        return signer.public_bytes.hex(), message, signer.sign(message), at_s

    def _root(self, now_s: int, before: Root | None) -> Root:
        listed = [
            Key(key.public_bytes.hex(), week * _WEEK_S, (week + 1) * _WEEK_S - 1)
            for week, key in enumerate(self.keys)
            if week * _WEEK_S - self._notice_s <= now_s <= (week + 1) * _WEEK_S + _GRACE_S
            and not self.stolen_s.get(week, now_s + 1) <= now_s
        ]
        root = Root(
            self.name,
            1 if before is None else before.version + 1,
            "" if before is None else before.digest,
            tuple(founder.public_bytes.hex() for founder in self.founders),
            _THRESHOLD,
            tuple(listed),
            now_s,
            now_s + self._life_s,
        )
        return seal(root, self._draw.sample(self.founders, _THRESHOLD))


class Believer:
    """A verifier of one foreign federation: its chain, fetched from ``federation`` while the link is up."""

    def __init__(self, federation: Federation) -> None:
        self.federation, self.chain = federation, Chain(federation.roots[0])

    def sync(self, now_s: float) -> None:
        """Fetch what is new."""
        for root in self.federation.roots[self.chain.current.version : self.federation.latest(now_s).version]:
            self.chain.take(root)

    def accepts(self, receipt: Receipt, now_s: float) -> bool:
        """Whether a receipt is believed."""
        key, message, signature, at_s = receipt
        try:
            self.chain.check(key, message, signature, at_s, now_s)
        except NotBelieved:
            return False
        return True

    def offered(self, root: Root) -> bool:
        """Whether a root that somebody else sends is taken."""
        try:
            return self.chain.take(root)
        except BadRoot:
            return False


class Gullible(Believer):
    """Takes whatever root its own founders signed, as one without a chain would: the control."""

    def offered(self, root: Root) -> bool:
        """See ``Believer``."""
        if len(signers(root, root.founders)) >= root.threshold:
            self.chain = Chain(root)
            return True
        return False


def forge(kind: str, home: Federation, other: Federation, now_s: float, draw: random.Random) -> Receipt:
    """A receipt in ``home``'s name that must not be believed at ``now_s``."""
    message = draw.randbytes(32)
    key, _, signature, at_s = home.receipt(now_s, message)
    week = int(now_s // _WEEK_S)
    makers: dict[str, Callable[[], Receipt]] = {
        "signature": lambda: (key, message, draw.randbytes(64), at_s),
        "stranger": lambda: home.receipt(now_s, message, make_key(draw)),
        "changed": lambda: (key, message + b"\x00", signature, at_s),
        "other": lambda: other.receipt(now_s, message),
        "early": lambda: home.receipt(now_s, message, home.keys[week + 1]),
        "retired": lambda: home.receipt(now_s, message, home.keys[week - 1]),
        "future": lambda: home.receipt(now_s + DAY_S, message, home.keys[int((now_s + DAY_S) // _WEEK_S)]),
    }
    return makers[kind]()


def fork(home: Federation, double: int) -> tuple[bool, bool, int]:
    """``double`` founders sign two successors of the first root, the others one each, however they like.

    Returns whether two verifiers can be led apart, whether they notice when they compare, and how many
    founders the evidence names.
    """
    first, second = home.roots[0], home.roots[1]
    kept = {name: getattr(second, name) for name in Root.__dataclass_fields__}
    bare = [Root(**{**kept, "signatures": {}}), Root(**{**kept, "signatures": {}, "keys": ()})]
    liars, honest = home.founders[:double], home.founders[double:]
    for count in range(len(honest) + 1):
        for some in combinations(honest, count):
            others = [founder for founder in honest if founder not in some]
            left, right = seal(bare[0], [*liars, *some]), seal(bare[1], [*liars, *others])
            one, two = Chain(first), Chain(first)
            try:
                one.take(left)
                two.take(right)
            except BadRoot:
                continue
            try:
                one.take(two.current)
            except Equivocation as found:
                return True, True, len(found.culprits)
            return True, False, 0
    return False, False, 0
