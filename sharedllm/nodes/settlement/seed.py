"""The seed's two ledgers, as small honest models of what was falsified; nothing is settled with them.

``OneSided``: a server books an upload when it sends, a client books a download when it receives, each in its
own book and nobody signs; claims that arrive twice are refused by their number. What is lost on the way is in
one book and not in the other (b067: p95 drift 3.747 %, duplicates all refused).

``Unsigned``: a server reports ``(receipt_id, manifest_hash, server_id, fee_units)`` and is paid if the id is
new, the manifest is in the directory and the server is listed as serving it. Nothing binds the report to
what was asked for, so a server that names another manifest that it serves is paid (b068: 4 of 4,068 leaked).
The seed does not say how it checked; this is the simplest check that refuses most and leaks some.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sharedllm.nodes.settlement.errors import StatementRefused
from sharedllm.nodes.settlement.royalty import HUNDREDTHS, TRAINER_PERCENT, Split

__all__ = ["OneSided", "Unsigned"]


@dataclass
class OneSided:
    """One node's two columns, in bytes by peer."""

    uploads: dict[str, int] = field(default_factory=dict)
    downloads: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    _seen: set[tuple[str, int]] = field(default_factory=set)

    def sent(self, client: str, size_bytes: int) -> None:
        """Book an upload, whatever becomes of it."""
        self.uploads[client] = self.uploads.get(client, 0) + size_bytes

    def received(self, server: str, number: int, size_bytes: int) -> bool:
        """Book a download; False, and nothing booked, if this number of the server's came before."""
        if (server, number) in self._seen:
            self.repeated += 1
            return False
        self._seen.add((server, number))
        self.downloads[server] = self.downloads.get(server, 0) + size_bytes
        return True


class Unsigned:
    """Royalties on the server's word: ``serving`` says which manifests each server is listed for."""

    def __init__(self, trainers: Mapping[str, str], serving: Mapping[str, Collection[str]]) -> None:
        self.balances: dict[str, int] = {}
        self._trainers, self._serving = trainers, serving
        self._seen: set[str] = set()

    def settle(self, receipt_id: str, manifest: str, server: str, fee_units: int) -> Split:
        """Pay; raises ``StatementRefused`` for a repeated id, or a manifest unknown or not served there."""
        if receipt_id in self._seen:
            raise StatementRefused("replay", f"The receipt {receipt_id} was paid before.")
        if manifest not in self._trainers:
            raise StatementRefused("ghost", f"No manifest {manifest[:16]}… is in the directory.")
        if manifest not in self._serving.get(server, ()):
            raise StatementRefused("swap", f"The server is not listed for the manifest {manifest[:16]}….")
        self._seen.add(receipt_id)
        royalty = TRAINER_PERCENT * fee_units
        split = Split(royalty, HUNDREDTHS * fee_units - royalty)
        for party, amount in ((self._trainers[manifest], split.royalty), (server, split.earnings)):
            self.balances[party] = self.balances.get(party, 0) + amount
        return split
