"""One worker of a joint training, as a process of its own: it trains, meets the others, and takes their step.

It reads its ``Job`` as JSON from stdin and says what happens as lines of JSON on stdout. A round that was
broken is repeated by those who are left with the updates they already have; nobody takes a step twice, for
each new generation first agrees on one state.

*Covered*: being killed, stopped or cut off at any point; a launcher that dies (Linux ends its workers with
it; elsewhere they end when the meeting place does not answer). *Not covered*: bit-equal states on unlike
processors, which the comparison of hashes finds and ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.distributed_c10d import Store

from sharedllm.errors import SharedLLMError
from sharedllm.robust import aggregate
from sharedllm.training import checkpoint as checkpoints
from sharedllm.training.outer.compression import Coding, encode
from sharedllm.training.outer.processes.errors import Broken, CannotGoOn
from sharedllm.training.outer.processes.exchange import Differs, Heard, Held, agree, compare, exchange
from sharedllm.training.outer.processes.group import Group, sent_bytes
from sharedllm.training.outer.processes.learner import Learner, read_text
from sharedllm.training.outer.processes.liar import Liar
from sharedllm.training.outer.processes.meeting import Generation, Meeting, enter, interface_toward
from sharedllm.training.outer.processes.settings import Settings, fewest
from sharedllm.training.outer.processes.state import State

__all__ = ["Job", "Say", "Worker", "main", "stored_state", "work"]

Say = Callable[[dict[str, Any]], None]

_PR_SET_PDEATHSIG = 1
_ATTEMPTS = 8


@dataclasses.dataclass(frozen=True)
class Job:
    """Where worker ``number`` finds the others, its text and its checkpoint; what it lies, if anything."""

    address: str
    port: int
    number: int
    folder: str
    attack: str | None = None
    liars: int = 0


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """An update that is ready to be sent, and what is owed after it."""

    message: bytes
    loss_nats: float
    residual_P: Tensor | None


class Worker:
    """The life of one worker; ``run`` is all of it."""

    def __init__(self, job: Job, store: Store, settings: Settings, say: Say) -> None:
        self._job, self._store, self._settings, self._say = job, store, settings, say
        streams = read_text(Path(job.folder) / "text.safetensors", settings)
        self._learner = Learner(settings, streams, job.number, flipped=job.attack == "label-flip")
        self._liar = Liar(settings, job.attack, job.liars) if job.attack is not None else None
        self._coding = Coding(settings.codec)
        self._meeting = Meeting(store, settings, job.number, fewest(settings.rule, settings.liars))
        self._interface = interface_toward(job.address, job.port)
        self._path = _path(Path(job.folder), job.number)
        self._held = [Held(self._resume() or self._learner.start(), 0)]
        self._prepared: dict[str, _Prepared] = {}
        self._arrived_s = time.monotonic()

    @property
    def state(self) -> State:
        """The newest state that this worker has."""
        return self._held[0].state

    def run(self) -> State:
        """Train until the last round is over and all members have confirmed it; return the last state.

        Raises ``CannotGoOn``, ``BadRecipe`` when the loss is not finite, ``BadAggregate``.
        """
        broken = 0
        while True:
            generation = self._meeting.next(self._arrived_s, finished=self._finished)
            group = Group(
                self._store, generation, self._job.number, self._interface, self._settings.patience_s
            )
            self._say({"event": "generation", "number": generation.number, "members": generation.members})
            before = self.state.round
            try:
                with group:
                    if self._together(group, generation):
                        break
                broken = 0
            except Broken as error:
                broken = broken + 1 if self.state.round == before else 1
                self._say({"event": "broken", "round": self.state.round, "why": str(error)})
            except Differs as error:
                self._sentence([generation.members[rank] for rank in error.ranks])
            if broken > _ATTEMPTS:
                raise CannotGoOn(
                    f"Worker {self._job.number} met the others {_ATTEMPTS} times and lost them each time "
                    "before a round was over; look whether they can all reach each other, or give more "
                    "--patience."
                )
        self._meeting.leave()
        return self.state

    @property
    def _finished(self) -> bool:
        return self.state.round >= self._settings.rounds

    def _together(self, group: Group, generation: Generation) -> bool:
        """Train with one generation until somebody wants in; returns whether the training is over."""
        state = agree(group, self._held, self._settings.liars, generation.number)
        self._held = [Held(state, generation.number)]
        while not self._finished:
            if self._round(group, generation) and not self._finished:
                return False
        self._arrived_s = time.monotonic()
        compare(group, self.state)
        return True

    def _round(self, group: Group, generation: Generation) -> bool:
        """Take part in one round; returns whether somebody waits to be let in."""
        began_s = time.monotonic()
        state, sent_before = self.state, sent_bytes()
        self._say({"event": "began", "round": state.round})
        ready = self._prepare(state)
        self._arrived_s = time.monotonic()
        heard = exchange(group, state, ready.message, ready.loss_nats, self._meeting.waiting())
        update_P = self._step(state, heard, generation)
        if self._liar is not None:
            self._liar.heard(heard.updates_KP, group.rank)
        if self._finished or self._settings.writes_after(state.round):
            self._write()
        spent = {
            "message_bytes": len(ready.message),
            "sent_bytes": sent_bytes() - sent_before,
            "seconds": round(time.monotonic() - began_s, 3),
        }
        self._tell(generation, heard, update_P, spent)
        return heard.somebody_waits

    def _prepare(self, state: State) -> _Prepared:
        """Return the update for ``state``, computing it the first time only."""
        ready = self._prepared.get(state.sha256)
        if ready is None:
            update_P, loss_nats = self._learner.update(state)
            if self._liar is not None:
                update_P = self._liar.lie(update_P, state.round)
            message = encode(update_P, self._coding)
            if self._liar is not None:
                message = self._liar.damage(message)
            ready = _Prepared(message, loss_nats, self._coding.residual_P)
            # two: this round may be undone, and the one before it be repeated
            self._prepared = dict([*list(self._prepared.items())[-1:], (state.sha256, ready)])
        self._coding.residual_P = ready.residual_P
        return ready

    def _step(self, state: State, heard: Heard, generation: Generation) -> Tensor:
        """Take the outer step, and return the update along which it goes."""
        how = self._settings
        chance = torch.Generator().manual_seed(heard.coin)
        update_P = aggregate(heard.updates_KP, how.rule, how.liars, generator=chance)
        after = state.after(update_P, how.outer_lr, how.outer_momentum)
        self._held = [Held(after, generation.number), Held(state, generation.number)]
        return update_P

    def _tell(self, generation: Generation, heard: Heard, update_P: Tensor, spent: dict[str, float]) -> None:
        away_K = torch.linalg.vector_norm(heard.updates_KP - update_P, dim=1)
        away_K = away_K / away_K[away_K.isfinite()].median().clamp_min(1e-30)
        self._say(
            {
                "event": "round",
                "round": self.state.round - 1,
                "generation": generation.number,
                "members": generation.members,
                "loss_nats": heard.loss_nats,
                "away": [round(away, 3) if away < float("inf") else None for away in away_K.tolist()],
                "unusable": {str(generation.members[rank]): why for rank, why in heard.unusable.items()},
                "sha256": self.state.sha256,
                **spent,
            }
        )

    def _sentence(self, others: list[int]) -> None:
        for number in others:
            why = (
                f"Worker {number} was put out: after round {self.state.round} its state differed from what "
                "most of the others had computed from the same updates."
            )
            self._say({"event": "out", "worker": number, "why": why})
            self._meeting.put_out(number, why)

    def _write(self) -> None:
        state = {
            "round": self.state.round,
            "weights": self.state.weights_P,
            "momentum": self.state.momentum_P,
            "residual": self._coding.residual_P,
            "moments": self._learner.moments(),
        }
        checkpoints.write(self._path, _identity(self._settings, self._job.number), state)

    def _resume(self) -> State | None:
        stored = checkpoints.read(self._path, _identity(self._settings, self._job.number))
        if stored is None:
            return None
        self._learner.restore(stored["moments"])
        self._coding.residual_P = stored["residual"]
        return State(stored["round"], stored["weights"], stored["momentum"])


def stored_state(folder: Path, settings: Settings, number: int) -> State | None:
    """Read the state in the checkpoint of worker ``number``, if it wrote one. Raises ``BadRecipe``."""
    stored = checkpoints.read(_path(folder, number), _identity(settings, number))
    return None if stored is None else State(stored["round"], stored["weights"], stored["momentum"])


def _path(folder: Path, number: int) -> Path:
    return folder / f"worker-{number}.pt"


def _identity(settings: Settings, number: int) -> dict[str, Any]:
    return {"settings": settings.sha256, "number": number}


def work(job: Job, store: Store, settings: Settings, say: Say) -> State:
    """Do ``job`` in this process and say how it ended; raises as ``Worker.run``."""
    torch.set_num_threads(1)  # sums in one order; a machine with more cores runs more workers
    worker = Worker(job, store, settings, say)
    state = worker.run()
    say({"event": "done", "round": state.round, "sha256": state.sha256})
    return state


def main() -> None:
    """Run the job on stdin as a child of the process that wrote it."""
    job = json.loads(sys.stdin.readline())
    _tie_to(job.pop("parent"))

    def say(event: dict[str, Any]) -> None:
        print(json.dumps(event), flush=True)

    try:
        store, settings = enter(job["address"], job["port"])
        work(Job(**job), store, settings, say)
    except SharedLLMError as error:
        say({"event": "failed", "why": str(error)})
        sys.exit(error.exit_code)


def _tie_to(parent: int) -> None:
    """End this process when ``parent`` does, where the kernel can see to it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the launcher is gone")
