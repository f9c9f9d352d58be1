"""The arms of ``spreading`` again with processes, sockets and certificates on this machine.

Rounds are wall time over the mean pause between a member's calls. Times include TLS handshakes and whatever
else this machine does; they are for "does it arrive", and only roughly for "in how many rounds".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from sharedllm.nodes.gossip.trials.processes import Members

__all__ = ["Loopback"]

_PATIENCE_ROUNDS = 120.0


class Loopback:
    """``nodes`` members under ``folder`` that call each other every ``round_s``; leases live ``lease_s``."""

    def __init__(self, folder: Path, nodes: int, round_s: float, lease_s: float) -> None:
        self._folder, self._nodes, self._round_s, self._lease_s = folder, nodes, round_s, lease_s

    def spread(self, tells: int) -> list[float]:
        """Rounds until all members knew, for each of ``tells`` pieces of news from different members."""
        with self._members("spread") as members:
            took = [
                members.tell(f"news-{i}", members.running[i % self._nodes], members.running, self._patience_s)
                for i in range(tells)
            ]
        return [_PATIENCE_ROUNDS if one is None else one / self._round_s for one in took]

    def churned(self) -> float:
        """Share of the living that learn news told before a third was killed and replaced, the teller too."""
        third = max(1, self._nodes // 3)
        with self._members("churned") as members:
            teller, rest = members.running[0], members.running[1:]
            members.tell("news", teller, rest[-2:], self._patience_s)
            members.kill([teller, *rest[: third - 1]])
            seeds = [one.contact for one in members.running[:3]]
            for _ in range(third):
                members.join(seeds)
            members.heard("news", members.running, self._patience_s)
            return _share([bool(state["heard"]) for state in members.states()])

    def parted(self, parted_rounds: int) -> tuple[float, float, float | None]:
        """As ``spreading.parted``: two halves that refuse each other for a while, with news in each."""
        with self._members("parted") as members:
            half = self._nodes // 2
            left, right = members.running[:half], members.running[half:]
            members.part(left, right)
            members.tell("left", left[0], left, self._patience_s)
            members.tell("right", right[0], right, self._patience_s)
            members.heard("nothing", members.running, parted_rounds * self._round_s)
            heard = [state["heard"] for state in members.states()]
            leaked = _share([len(keys) > 1 for keys in heard])
            members.part((), ())
            healed_s = time.monotonic()
            last = [members.heard(key, members.running, self._patience_s) for key in ("left", "right")]
            both = _share([len(state["heard"]) == 2 for state in members.states()])
        known = [one for one in last if one is not None]
        return leaked, both, (max(known) - healed_s) / self._round_s if len(known) == 2 else None

    def forgotten(self, life_rounds: int) -> tuple[int, int, int]:
        """As ``spreading.forgotten``, and the lease of a member that is killed must end too.

        The held: members that still show the expired news or the dead node.
        """
        with self._members("forgotten") as members:
            teller, dead = members.running[0], members.running[-1]
            teller.ask("say", key="withdrawn", life_s=10 * life_rounds * self._round_s)
            members.tell("news", teller, members.running, self._patience_s, life_rounds * self._round_s)
            height = sum("news" in state["heard"] for state in members.states())
            teller.ask("withdraw", key="withdrawn")
            members.kill([dead])
            ends_s = max(self._lease_s, life_rounds * self._round_s) + 4 * self._round_s + 1
            _wait(ends_s, lambda: not any(_shows(state, dead.contact.id) for state in members.states()))
            states = members.states()
        held = sum(_shows(state, dead.contact.id) for state in states)
        return height, held, sum("withdrawn" in state["heard"] for state in states)

    @property
    def _patience_s(self) -> float:
        return _PATIENCE_ROUNDS * self._round_s

    def _members(self, name: str) -> Members:
        """Members who all know of each other."""
        members = Members(self._folder / name, self._nodes, self._round_s, self._lease_s)
        try:
            _wait(
                self._patience_s,
                lambda: all(len(state["nodes"]) == self._nodes for state in members.states()),
            )
        except BaseException:
            members.close()
            raise
        return members


def _shows(state: dict[str, list[str]], dead: str) -> bool:
    return "news" in state["heard"] or dead in state["nodes"]


def _share(those: list[bool]) -> float:
    return sum(those) / len(those)


def _wait(longest_s: float, holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + longest_s
    while not holds() and time.monotonic() < until_s:
        threading.Event().wait(0.1)
