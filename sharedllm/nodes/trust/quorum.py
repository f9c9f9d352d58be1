"""A living node's part in expulsions: it says its operator's votes, counts everybody's, and acts on a quorum.

The operator's votes are in ``votes.json`` of the node's state folder, which ``sharedllm vote`` writes and
every review reads again; they hold while the node runs, and half a day beyond. What members say against whom,
and who was expelled, is written to ``accused.json`` beside it: operators look there, and a node that starts
again reads from it whom it had expelled.

*Covered*: a node that restarts; a vote that is taken back, also while the node was down; a file that is
damaged (it counts as empty, so own votes are taken back, and expulsions are counted anew); members who accuse
many (what is written is bounded, and whom most accuse comes first); a disk that is full. *Not covered*: what
``revocation`` does not cover; undoing an expulsion, for which every operator removes ``accused.json`` while
the node is down.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.gossip import Entry, Kind, Service
from sharedllm.nodes.gossip.entries import PAYLOAD_BYTES
from sharedllm.nodes.identity import is_node_id, write_public
from sharedllm.nodes.trust.revocation import Docket, accused_in

__all__ = ["Accusation", "BadVote", "Quorum", "accusations", "vote"]

SETTLED_S = 60.0
_VOTE_S = 12 * 3600.0
_FILE_BYTES = 16 * 1024 * 1024
_VOTES = 64
# with at most 512 bytes each, which JSON may write as six times as many: well within _FILE_BYTES
_ACCUSED, _REASONS = 256, 2048

_log = logging.getLogger(__name__)


class BadVote(SharedLLMError):
    """A vote names no node, or says too much."""


def vote(state: Path, node: str, because: str | None) -> None:
    """Vote for the expulsion of ``node`` (its id) in the name of the node whose state folder this is.

    ``because`` None takes the vote back. Raises ``BadVote`` for what is no node id, too long or too much.
    """
    if not is_node_id(node):
        raise BadVote(f"{node!r} is no node id; `sharedllm status` shows them.")
    if because is not None and len(_said(because)) > PAYLOAD_BYTES[Kind.VOTE]:
        raise BadVote(
            f"The reason has {len(_said(because))} bytes; others take at most {PAYLOAD_BYTES[Kind.VOTE]}."
        )
    votes = _votes(state)
    if because is None:
        votes.pop(node, None)
    else:
        votes[node] = because
    if len(votes) > _VOTES:
        raise BadVote(f"This node votes against {_VOTES} others already; take one of these votes back.")
    _write(state / "votes.json", votes)


@dataclasses.dataclass
class Accusation:
    """What members say against a node: ``reasons`` by signer, and whether a quorum ``expelled`` it."""

    reasons: dict[str, str]
    expelled: bool


def accusations(state: Path) -> dict[str, Accusation]:
    """What the node with this state folder heard against whom, by the accused's id."""
    found = {}
    for node, row in _read(state / "accused.json").items():
        reasons, expelled = (
            (row.get("reasons"), row.get("expelled")) if isinstance(row, dict) else (None, None)
        )
        if is_node_id(node) and isinstance(reasons, dict) and isinstance(expelled, bool):
            found[node] = Accusation({str(signer): str(why) for signer, why in reasons.items()}, expelled)
    return found


class Quorum:
    """Votes and expulsions of the node with this ``state`` folder; ``review`` is for every round of gossip.

    ``expel`` is called once for every other node that two thirds of the known members signed against, and
    again after a restart; it ends that node's connections. ``settled_s``: how long a member must be here to
    count.
    """

    def __init__(
        self,
        state: Path,
        expel: Callable[[str], object],
        *,
        settled_s: float = SETTLED_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state, self._expel, self._clock = state, expel, clock
        self._docket = Docket(clock(), settled_s)
        self._acted: set[str] = set()
        self._kept = accusations(state)
        for node, row in self._kept.items():
            if row.expelled:
                self._docket.expelled[node] = frozenset(row.reasons)

    def expelled(self, node: str) -> bool:
        """Whether a quorum has expelled this node."""
        return node in self._docket.expelled

    def review(self, service: Service) -> None:
        """Say the operator's votes through ``service``, count what it heard, and act."""
        self._speak(service)
        heard = service.heard(Kind.VOTE)
        self._docket.review([*service.heard(Kind.LEASE), *heard], self._clock())
        # before anything is written, which a full disk would prevent
        for node in sorted(set(self._docket.expelled) - self._acted):
            self._acted.add(node)
            if node == service.peer.me.id:
                _log.error("this node is expelled: %d members signed", len(self._docket.expelled[node]))
                continue
            _log.warning("node %s is expelled: %d members signed", node, len(self._docket.expelled[node]))
            self._expel(node)
        accused = self._accused(heard)
        if accused != self._kept:
            rows = {node: dataclasses.asdict(accusation) for node, accusation in accused.items()}
            _write(self._state / "accused.json", rows)
            self._kept = accused

    def _accused(self, votes: list[Entry]) -> dict[str, Accusation]:
        """Who is accused or expelled; with ``_REASONS`` reasons at most, of those whom most accuse."""
        accused = {
            node: Accusation(dict.fromkeys(sorted(signers), ""), True)
            for node, signers in self._docket.expelled.items()
        }
        against: dict[str, list[Entry]] = defaultdict(list)
        for entry in votes:
            if (node := accused_in(entry)) is not None:
                against[node].append(entry)
        # who accuses many in vain must not push out what many say of one
        ranked = sorted(against, key=lambda node: (-len(against[node]), node))
        for node in ranked[:_ACCUSED]:
            accused.setdefault(node, Accusation({}, False))
        kept = [(node, entry) for node in ranked for entry in against[node] if node in accused]
        for node, entry in kept[:_REASONS]:
            accused[node].reasons[entry.issuer_id] = entry.payload.decode("utf-8", errors="replace")
        return accused

    def _speak(self, service: Service) -> None:
        votes = {node.encode(): _said(because) for node, because in _votes(self._state).items()}
        service.stand_by(Kind.VOTE, votes, _VOTE_S)


def _said(because: str) -> bytes:
    # what was typed, or read from a file, need not be Unicode
    return because.encode(errors="replace")


def _votes(state: Path) -> dict[str, str]:
    return {
        node: because
        for node, because in list(_read(state / "votes.json").items())[: _VOTES + 1]
        if is_node_id(node) and isinstance(because, str) and len(_said(because)) <= PAYLOAD_BYTES[Kind.VOTE]
    }


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if it is missing or damaged."""
    try:
        if path.stat().st_size > _FILE_BYTES:
            return {}
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, rows: dict[str, Any]) -> None:
    write_public(path, json.dumps(rows, indent=1, sort_keys=True).encode())
