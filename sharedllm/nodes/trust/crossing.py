"""What one federation believes of another: a chain of roots, followed forward only, and bounded in age.

A verifier pins the first root when two federations meet. From then on it takes only a successor of what it
has. While it hears nothing it goes on with what it has, until that expires: staleness is bounded by the life
of a root. A key that is announced before it is used is known before it is needed, so that a cut link shorter
than the notice costs nothing.

*Covered*: a root that is older (rollback), skips a version, is signed by too few, or expired; two roots of
one version (equivocation), which freezes the chain and names the founders who signed both; a receipt by a
key that is not, not yet or no longer listed for its time. *Not covered*: a stolen key until the root that
drops it arrives or the known one expires: that is the price of accepting anything while a link is down; two
halves of the world that are shown different roots and never compare them.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.trust.founders import BadRoot, Root, signers

__all__ = ["Chain", "Equivocation", "NotBelieved"]

_SKEW_S = 300
_REMEMBERED = 1024


class NotBelieved(SharedLLMError):
    """A statement of another federation is not accepted, and why."""


class Equivocation(BadRoot):
    """Two roots of one version, both signed by enough founders; ``culprits`` signed both."""

    def __init__(self, one: Root, other: Root, culprits: frozenset[str]) -> None:
        super().__init__(
            f"The founders of {one.federation} signed two different roots of version {one.version}; "
            f"{len(culprits)} of them signed both. Nothing of it is believed until an operator decides."
        )
        self.roots, self.culprits = (one, other), culprits


class Chain:
    """A foreign federation's roots from the pinned ``first`` on; ``BadRoot`` if too few signed that one."""

    def __init__(self, first: Root) -> None:
        if len(signers(first, first.founders)) < first.threshold:
            raise BadRoot(
                f"The first root of {first.federation} is not signed by {first.threshold} founders."
            )
        self._roots = {first.version: first}
        self._keys: dict[str, Ed25519PublicKey] = {}
        self.current = first
        self.frozen: Equivocation | None = None

    def take(self, root: Root) -> bool:
        """Follow the chain by one root; whether it was news.

        Raises ``BadRoot`` for one that does not follow, ``Equivocation`` for one that contradicts.
        """
        if root.federation != self.current.federation:
            raise BadRoot(f"A root of {root.federation} came where one of {self.current.federation} belongs.")
        if root.version <= self.current.version:
            return self._compare(root)
        if root.version != self.current.version + 1 or root.previous != self.current.digest:
            raise BadRoot(
                f"Root {root.version} of {root.federation} does not follow root {self.current.version}; "
                "fetch those between."
            )
        self._require(root, self.current)
        self._roots[root.version] = self.current = root
        self._roots.pop(root.version - _REMEMBERED, None)
        self._keys.clear()
        return True

    def check(self, key: str, message: bytes, signature: bytes, at_s: float, now_s: float) -> None:
        """Raise ``NotBelieved`` unless the federation's ``key`` signed ``message``, made at ``at_s``."""
        if self.frozen is not None:
            raise NotBelieved(str(self.frozen))
        root = self.current
        if now_s > root.expires_s:
            raise NotBelieved(
                f"What is known of {root.federation} expired {now_s - root.expires_s:.0f} s ago; it is "
                "believed again when a newer root arrives."
            )
        listed = [one for one in root.keys if one.public == key]
        if not any(one.from_s <= at_s <= one.until_s for one in listed) or at_s > now_s + _SKEW_S:
            raise NotBelieved(f"The key {key[:16]}… does not speak for {root.federation} at that time.")
        try:
            self._public(key).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise NotBelieved(f"A statement of {root.federation} is forged or was changed.") from None

    def _compare(self, root: Root) -> bool:
        """An old root again, or another of its version."""
        known = self._roots.get(root.version)
        if known is None or known.digest == root.digest:
            return False
        before = self._roots.get(root.version - 1)
        self._require(root, before if before is not None else known)
        culprits = signers(root, known.founders) & signers(known, known.founders)
        self.frozen = Equivocation(known, root, culprits)
        raise self.frozen

    def _require(self, root: Root, before: Root) -> None:
        for founders, threshold in ((before.founders, before.threshold), (root.founders, root.threshold)):
            signed = len(signers(root, founders))
            if signed < threshold:
                raise BadRoot(
                    f"Root {root.version} of {root.federation} is signed by {signed} founders, and "
                    f"{threshold} are needed."
                )

    def _public(self, key: str) -> Ed25519PublicKey:
        if key not in self._keys:
            self._keys[key] = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        return self._keys[key]
