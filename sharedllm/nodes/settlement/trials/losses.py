"""One message of many is lost: what that does to books under three protocols, message by message.

Messages arrive at once and in order but for the one that is lost; claims are sent again once ``_OPEN`` of a
pair wait, and at the end. A pair's books rest on that pair's messages alone, so for each loss only its pair
is run again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sharedllm.nodes.settlement.trials.books import Books
from sharedllm.nodes.settlement.trials.parties import party

__all__ = ["Gap", "Transfer", "exchange", "lose_each", "transfers_of"]

_MOST_BYTES = 10**7
_OPEN = 8


class Transfer(NamedTuple):
    """``size_bytes`` from one node to another."""

    server: int
    client: int
    size_bytes: int


@dataclass(frozen=True)
class Gap:
    """By how much two books of the same pair differ.

    ``open_bytes``: the most on the way; ``end_bytes``: over all pairs at the end; ``wrong_bytes``: how far
    both are from what was sent, at the end.
    """

    open_bytes: int
    end_bytes: int
    wrong_bytes: int


def transfers_of(seed: int, nodes: int, count: int) -> list[Transfer]:
    """Transfers between nodes drawn at random."""
    draw = random.Random(seed)
    pairs = (draw.sample(range(nodes), 2) for _ in range(count))
    return [Transfer(server, client, draw.randint(1, _MOST_BYTES)) for server, client in pairs]


def exchange(
    kind: Callable[..., Books], transfers: Sequence[Transfer], seed: int, lost: tuple[int, str] | None = None
) -> Gap:
    """Make all transfers; ``lost`` is the number of one, and which of its messages: claim or answer."""
    parties = {n: party(seed, n) for one in transfers for n in (one.server, one.client)}
    nodes = {n: kind(one) for n, one in parties.items()}
    sizes: dict[tuple[int, int], list[int]] = {}
    open_bytes = 0

    def deliver(pair: tuple[int, int], number: int, claim: Any, loses: str | None) -> None:
        server, client = pair
        if loses == "claim":
            return
        answer = nodes[client].take(parties[server].id, claim, sizes[pair][number - 1])
        if answer is not None and loses != "answer":
            nodes[server].confirm(parties[client].id, answer)

    def resend(pair: tuple[int, int]) -> None:
        for claim in nodes[pair[0]].waiting(parties[pair[1]].id):
            deliver(pair, claim[0] if isinstance(claim, tuple) else claim.number, claim, None)

    def gap(pair: tuple[int, int]) -> int:
        server, client = pair
        return abs(nodes[server].up(parties[client].id)[1] - nodes[client].down(parties[server].id)[1])

    for at, one in enumerate(transfers):
        pair = (one.server, one.client)
        sizes.setdefault(pair, []).append(one.size_bytes)
        claim = nodes[one.server].give(parties[one.client].id, one.size_bytes)
        deliver(pair, len(sizes[pair]), claim, lost[1] if lost and lost[0] == at else None)
        open_bytes = max(open_bytes, gap(pair))
        if len(nodes[one.server].waiting(parties[one.client].id)) >= _OPEN:
            resend(pair)
    for pair in sizes:
        resend(pair)
    wrong = sum(
        abs(sum(sent) - nodes[pair[0]].up(parties[pair[1]].id)[1])
        + abs(sum(sent) - nodes[pair[1]].down(parties[pair[0]].id)[1])
        for pair, sent in sizes.items()
    )
    return Gap(open_bytes, sum(gap(pair) for pair in sizes), wrong)


def lose_each(
    kind: Callable[..., Books], transfers: Sequence[Transfer], seed: int, which: str, at: int
) -> Gap:
    """Lose one message of transfer ``at``, running its pair again with all its transfers."""
    pair = transfers[at][:2]
    own = [one for one in transfers if one[:2] == pair]
    return exchange(kind, own, seed, (sum(one[:2] == pair for one in transfers[:at]), which))
