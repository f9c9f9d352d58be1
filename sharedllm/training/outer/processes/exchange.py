"""What the members of a group say to each other: which state they go on from, and each round's updates.

A round takes three exchanges. First everybody says the hash of its state and of its update: from then on
nobody can change its update in the light of the others'. Then the updates. Then the hash of all that was
heard: only if all heard the same does anybody take the step.

*Covered*: a state that differs from the majority's; an update that is damaged, not finite, or other than was
announced; a member lost between any two exchanges. *Not covered*: a member that forwards other bytes than it
got (gloo's ring passes them on): nobody takes the step, but who did it is not found out.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sharedllm.errors import BadUpdate
from sharedllm.training.outer.compression import decode
from sharedllm.training.outer.processes.errors import Broken, CannotGoOn
from sharedllm.training.outer.processes.group import Group
from sharedllm.training.outer.processes.state import State
from sharedllm.training.outer.processes.vouching import Claim, agreed, outvoted

__all__ = ["Differs", "Heard", "Held", "agree", "compare", "exchange"]

_HEADER = struct.Struct("<32s32sd?")  # state, update, loss, somebody waits
_CLAIM_BYTES = 512


class Differs(Exception):
    """The states of these ``ranks`` are not what the majority has."""

    def __init__(self, ranks: list[int]) -> None:
        super().__init__(ranks)
        self.ranks = ranks


@dataclass(frozen=True)
class Held:
    """A state that a worker has, and the generation in which it had it."""

    state: State
    generation: int


@dataclass(frozen=True)
class Heard:
    """What a round's exchange brought: an update per rank, in which one that can't be used is all NaN.

    ``loss_nats`` is the median over members of the mean over their inner steps; ``coin`` is drawn from all
    announcements, after which no update could be changed.
    """

    updates_KP: Tensor
    unusable: dict[int, str]
    loss_nats: float
    somebody_waits: bool
    coin: int


def exchange(group: Group, state: State, message: bytes, loss_nats: float, somebody_waits: bool) -> Heard:
    """Tell the others this worker's update for ``state``'s round, and hear theirs.

    Raises ``Broken``, ``Differs``, and ``CannotGoOn`` where no state has a majority.
    """
    announced = hashlib.sha256(message).digest()
    own = _HEADER.pack(bytes.fromhex(state.sha256), announced, loss_nats, somebody_waits)
    raw = group.gather(own)
    headers = [_HEADER.unpack(header) for header in raw]
    _same([header[0].hex() for header in headers])
    messages = group.gather(message)
    updates, unusable = [], {}
    numbers = len(state.weights_P)
    for rank, (header, data) in enumerate(zip(headers, messages, strict=True)):
        try:
            if hashlib.sha256(data).digest() != header[1]:
                raise BadUpdate("The update is not the one that was announced.")
            updates.append(decode(data, numbers))
        except BadUpdate as error:
            unusable[rank] = str(error)
            updates.append(torch.full((numbers,), math.nan))
    everything = hashlib.sha256(b"".join([*raw, bytes(sorted(unusable))])).digest()
    if set(group.gather(everything)) != {everything}:
        raise Broken("The members did not all hear the same.")
    losses = [header[2] for header in headers if math.isfinite(header[2])]
    return Heard(
        torch.stack(updates),
        unusable,
        statistics.median(losses) if losses else math.nan,
        any(header[3] for header in headers),
        int.from_bytes(everything[:7], "big"),
    )


def compare(group: Group, state: State) -> None:
    """Make sure that all members hold ``state``. Raises as ``exchange``."""
    _same([one.hex() for one in group.gather(bytes.fromhex(state.sha256))])


def agree(group: Group, held: Sequence[Held], liars: int, generation: int) -> State:
    """Return the state that all members of a new generation go on from, fetching it if it is not held.

    Raises ``Broken``, and ``CannotGoOn`` where too few vouch for any state or nobody delivers it.
    """
    own = [[one.generation, one.state.round, one.state.sha256] for one in held]
    said = group.gather(json.dumps(own).encode().ljust(_CLAIM_BYTES))
    claims = [claim for rank, data in enumerate(said) for claim in _claims(rank, data, generation)]
    chosen = agreed(claims, liars, len(group.members))
    if chosen is None:
        raise CannotGoOn(
            f"No state is vouched for by {liars + 1} of the {len(group.members)} workers that are left, as "
            f"{liars} possible liars require; start the training again: it goes on from its checkpoint."
        )
    state = next((one.state for one in held if one.state.sha256 == chosen.sha256), None)
    holders = [c.member for c in claims if (c.round, c.sha256) == (chosen.round, chosen.sha256)]
    return _fetched(group, state, chosen, list(dict.fromkeys(holders)), len(held[0].state.weights_P))


def _fetched(group: Group, state: State | None, chosen: Claim, holders: list[int], numbers: int) -> State:
    """Let ``holders`` send the chosen state, one after the other, until everybody has it."""
    for holder in [None, *holders]:
        if holder is not None:
            both = torch.empty(2 * numbers) if state is None else state.packed()
            group.broadcast(both, holder)
            found = State.unpacked(chosen.round, both) if state is None else state
            state = found if found.sha256 == chosen.sha256 else None
        if all(one == b"\1" for one in group.gather(bytes([state is not None]))):
            assert state is not None
            return state
    raise CannotGoOn("Nobody delivered the state that was vouched for; start the training again.")


def _claims(rank: int, data: bytes, generation: int) -> list[Claim]:
    """Read what one member claims; nothing, if it is malformed or of a generation that has not been."""
    try:
        told: list[Any] = json.loads(data)
        claims = [Claim(rank, int(one[0]), int(one[1]), str(one[2])) for one in told]
    except (ValueError, TypeError, IndexError, KeyError):
        return []
    return [claim for claim in claims if 0 <= claim.generation < generation]


def _same(hashes: list[str]) -> None:
    ranks = outvoted(hashes)
    if ranks is None:
        raise CannotGoOn(
            "The workers' states have come apart and none has a majority; start the training again from its "
            "checkpoint, on machines of one kind."
        )
    if ranks:
        raise Differs(ranks)
