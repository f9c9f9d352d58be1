"""A plan of who dies, hangs, comes back and joins, carried out on real processes while they train.

``kill:2@3`` pulls worker 2's plug when it has begun round 3; ``freeze:1@4-6`` stops it where it is in round 4
and lets it go on when the others have finished round 6; ``join@5`` starts a newcomer when round 5 is over.
Rounds count from 1, as the progress shows them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from sharedllm.errors import BadRecipe
from sharedllm.training.outer.processes.launch import Crew, Event

__all__ = ["Churn"]

_FORM = re.compile(r"(?:(kill):(\d+)@(\d+)|(freeze):(\d+)@(\d+)-(\d+)|(join)@(\d+))", re.ASCII)


@dataclass(frozen=True)
class _Act:
    kind: Literal["kill", "freeze", "thaw", "join"]
    worker: int
    round: int


@dataclass
class Churn:
    """What is still to happen."""

    _acts: list[_Act] = field(default_factory=list)

    @classmethod
    def of(cls, plan: str, workers: int, rounds: int) -> Churn:
        """Read a plan: acts separated by commas, or nothing. Raises ``BadRecipe``."""
        acts: list[_Act] = []
        for part in filter(None, (part.strip() for part in plan.split(","))):
            found = _FORM.fullmatch(part)
            if found is None:
                raise BadRecipe(f"{part!r} is no churn; write kill:2@3, freeze:1@4-6 or join@5.")
            if found[1]:
                acts.append(_Act("kill", int(found[2]), int(found[3])))
            elif found[4]:
                acts.append(_Act("freeze", int(found[5]), int(found[6])))
                acts.append(_Act("thaw", int(found[5]), int(found[7])))
            else:
                acts.append(_Act("join", -1, int(found[9])))
        for act in acts:
            if act.worker >= workers or not 1 <= act.round <= rounds:
                raise BadRecipe(
                    f"The churn speaks of worker {act.worker} in round {act.round}; there are workers 0 to "
                    f"{workers - 1} and rounds 1 to {rounds}."
                )
        return cls(acts)

    def after(self, event: Event, crew: Crew) -> list[str]:
        """Do what is due after ``event``; return what was done, in words."""
        due = [act for act in self._acts if _is_due(act, event)]
        self._acts = [act for act in self._acts if act not in due]
        return [_do(act, crew) for act in due]


def _is_due(act: _Act, event: Event) -> bool:
    if event["event"] == "began":
        own = act.worker == event["worker"] and act.kind in ("kill", "freeze")
        return own and event["round"] + 1 == act.round
    over = event["event"] == "round" and event["round"] + 1 >= act.round
    return over and (act.kind == "thaw" or (act.kind == "join" and event["round"] + 1 == act.round))


def _do(act: _Act, crew: Crew) -> str:
    if act.kind == "join":
        return f"worker {crew.join()} joins"
    if act.kind == "kill":
        crew.kill(act.worker)
        return f"worker {act.worker} is killed"
    if act.kind == "freeze":
        crew.freeze(act.worker)
        return f"worker {act.worker} is frozen"
    crew.thaw(act.worker)
    return f"worker {act.worker} goes on"
