"""Who belongs to the federation, who is here, and until when: leases, epochs, pauses and revocations.

A lease is renewed by every heartbeat and ends by itself. Reports are held in memory and written at least
every half lease, so that a thousand nodes don't cost a thousand disk flushes a heartbeat; a node that is new
or changed is written at once.

*Covered*: a restart loses no node: a lease that held when the coordinator was last alive holds for one lease
more. *Not covered*: a wall clock that is set back by more than a lease keeps the gone in the list that long.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, delete, insert, select, update

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.coordinator.database import nodes, revocations
from sharedllm.nodes.coordinator.schemas import NodeReport

__all__ = ["CERTIFICATE_LIFE_S", "LEASE_S", "Node", "Registry", "UnknownNode"]

LEASE_S = 9.0
CERTIFICATE_LIFE_S = 24 * 3_600.0

# What changes with every heartbeat and decides nothing may reach the disk a little later
_FLEETING = {"sessions", "kv_bytes", "weights_bytes", "traffic", "rtt_s", "bandwidth_bytes_per_s"}


class UnknownNode(SharedLLMError):
    """No node, or more than one, goes by that id or name."""


@dataclasses.dataclass(frozen=True)
class Node:
    """A member: what its certificate says, what it said last, until when its lease holds (unix s)."""

    id: str
    role: str
    name: str
    joined_s: float
    seen_s: float = 0.0
    lease_until_s: float = 0.0
    report: NodeReport | None = None


class Registry:
    """The directory of a federation. Safe for many threads; ``clock`` gives unix seconds."""

    def __init__(
        self, engine: Engine, *, clock: Callable[[], float] = time.time, lease_s: float = LEASE_S
    ) -> None:
        self.clock, self.lease_s = clock, lease_s
        self._engine = engine
        self._lock = threading.RLock()
        self._written_s: dict[str, float] = {}
        self._nodes = self._load()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction with the directory held still; who writes more than one table writes here.

        The lock comes before the database's own, in this order everywhere, so that no two wait for each
        other.
        """
        with self._lock, self._engine.begin() as connection:
            yield connection

    def add(self, connection: Connection, node_id: str, role: str, name: str) -> None:
        """Enter a node that has just joined, or joined again under another name or role."""
        with self._lock:
            old = self._nodes.get(node_id)
            node = Node(node_id, role, name, joined_s=self.clock() if old is None else old.joined_s)
            self._write(connection, node)
            self._nodes[node_id] = node

    def heartbeat(self, node_id: str, report: NodeReport) -> None:
        """Renew a node's lease with what it says of itself."""
        now = self.clock()
        with self._lock:
            old = self._nodes.get(node_id)
            joined_s = now if old is None else old.joined_s
            node = Node(node_id, report.role, report.name, joined_s, now, now + self.lease_s, report)
            fresh = old is None or old.report is None or self._substance(old) != self._substance(node)
            if fresh or now - self._written_s.get(node_id, 0.0) >= self.lease_s / 2:
                with self._engine.begin() as connection:
                    self._write(connection, node)
            self._nodes[node_id] = node

    def leave(self, node_id: str) -> None:
        """End a node's lease at once; its membership stays."""
        with self._lock:
            node = self._nodes.get(node_id)
            if node is not None:
                node = dataclasses.replace(node, lease_until_s=0.0)
                with self._engine.begin() as connection:
                    self._write(connection, node)
                self._nodes[node_id] = node

    def volunteer(self) -> dict[str, Any] | None:
        """Where a worker that relays for others is reached: the first by id, the same for all."""
        for node in self.live("worker"):
            assert node.report is not None
            port, known = node.report.relay_port, [e for e in node.report.endpoints if e.kind != "relay"]
            if port is not None and known and not node.report.draining:
                return {"kind": "relay", "host": known[0].host, "port": port, "relay": node.id}
        return None

    def live(self, role: str | None = None) -> list[Node]:
        """The nodes whose lease holds and who are not revoked, by id."""
        now, gone = self.clock(), self._ids(revocations)
        with self._lock:
            return sorted(
                (
                    node
                    for node in self._nodes.values()
                    if node.lease_until_s > now
                    and node.report is not None
                    and node.id not in gone
                    and role in (None, node.role)
                ),
                key=lambda node: node.id,
            )

    def members(self) -> list[Node]:
        """Every node that ever joined and was not revoked, by id."""
        gone = self._ids(revocations)
        with self._lock:
            return sorted(
                (node for node in self._nodes.values() if node.id not in gone), key=lambda node: node.id
            )

    def name(self, node_id: str) -> str:
        """A node's name, or the start of its id where it has none."""
        with self._lock:
            node = self._nodes.get(node_id)
        return node.name if node is not None else node_id[:8]

    def revoke(self, id_or_name: str) -> str:
        """Exclude a node for good: no ticket, no renewal, no route. Returns its id. Raises ``UnknownNode``.

        The coordinator refuses it from now on; the others learn of it with their next heartbeat.
        """
        node_id = self._find(id_or_name)
        with self._engine.begin() as connection:
            connection.execute(delete(revocations).where(revocations.c.id == node_id))
            connection.execute(insert(revocations).values(id=node_id, at_s=self.clock()))
        return node_id

    def is_revoked(self, node_id: str) -> bool:
        """Whether a node was excluded, by this process or another on the same database."""
        with self._engine.connect() as connection:
            found = connection.execute(select(revocations.c.id).where(revocations.c.id == node_id)).first()
        return found is not None

    def revoked(self) -> list[str]:
        """Ids whose certificates might still be valid by date; an older revocation needs no telling."""
        since = self.clock() - 2 * CERTIFICATE_LIFE_S
        with self._engine.connect() as connection:
            chosen = select(revocations.c.id).where(revocations.c.at_s > since).order_by(revocations.c.id)
            return list(connection.execute(chosen).scalars())

    def pause(self, id_or_name: str, paused: bool = True) -> str:
        """Give a worker no new pipelines until it is resumed. Returns its id. Raises ``UnknownNode``."""
        node_id = self._find(id_or_name)
        with self._engine.begin() as connection:
            connection.execute(update(nodes).where(nodes.c.id == node_id).values(paused=paused))
        return node_id

    def paused(self) -> set[str]:
        """The ids of paused nodes."""
        with self._engine.connect() as connection:
            return set(connection.execute(select(nodes.c.id).where(nodes.c.paused)).scalars())

    def next_epochs(self, connection: Connection, primary: str, count: int) -> int:
        """Reserve ``count`` epochs for a primary and return the first; none is ever given twice."""
        with self._lock:
            chosen = select(nodes.c.epoch).where(nodes.c.id == primary)
            last = int(connection.execute(chosen).scalar_one_or_none() or 0)
            connection.execute(update(nodes).where(nodes.c.id == primary).values(epoch=last + count))
            return last + 1

    def flush(self) -> None:
        """Write what memory knows better than the disk."""
        with self.writing() as connection:
            for node in self._nodes.values():
                if node.seen_s > self._written_s.get(node.id, 0.0):
                    self._write(connection, node)

    def _find(self, id_or_name: str) -> str:
        with self._engine.connect() as connection:
            rows = connection.execute(select(nodes.c.id, nodes.c.name)).all()
        found = [row.id for row in rows if id_or_name in (row.id, row.name)]
        if not found and len(id_or_name) >= 6:
            found = [row.id for row in rows if row.id.startswith(id_or_name)]
        if len(found) != 1:
            what = "No node is" if not found else f"{len(found)} nodes are"
            raise UnknownNode(
                f"{what} called {id_or_name[:64]!r}; give a name or an id as `sharedllm status` shows it."
            )
        return str(found[0])

    def _ids(self, table: Any) -> set[str]:
        with self._engine.connect() as connection:
            return set(connection.execute(select(table.c.id)).scalars())

    @staticmethod
    def _substance(node: Node) -> dict[str, Any] | None:
        return node.report.model_dump(exclude=_FLEETING) if node.report is not None else None

    def _write(self, connection: Connection, node: Node) -> None:
        values = {
            "role": node.role,
            "name": node.name,
            "joined_s": node.joined_s,
            "seen_s": node.seen_s,
            "lease_until_s": node.lease_until_s,
            "report": node.report.model_dump() if node.report is not None else None,
        }
        done = connection.execute(update(nodes).where(nodes.c.id == node.id).values(**values))
        if done.rowcount == 0:
            connection.execute(insert(nodes).values(id=node.id, paused=False, epoch=0, **values))
        self._written_s[node.id] = node.seen_s

    def _load(self) -> dict[str, Node]:
        with self._engine.connect() as connection:
            rows = connection.execute(select(nodes)).mappings().all()
        now, last_alive_s = self.clock(), max((row["seen_s"] for row in rows), default=0.0)
        loaded = {}
        for row in rows:
            until_s = row["lease_until_s"]
            if 0 < last_alive_s <= until_s:
                until_s = max(until_s, now + self.lease_s)
            loaded[row["id"]] = Node(
                row["id"],
                row["role"],
                row["name"],
                row["joined_s"],
                row["seen_s"],
                until_s,
                _read(row["report"]),
            )
        return loaded


def _read(report: Any) -> NodeReport | None:
    """A report from the disk; None where another version wrote it (the next heartbeat brings a new one)."""
    try:
        return NodeReport.model_validate(report) if report is not None else None
    except ValidationError:
        return None
