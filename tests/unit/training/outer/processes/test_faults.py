"""Worse things: a flipped bit, a dead launcher, a cut through the middle, a training killed and resumed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sharedllm.training.outer.processes import Crew, Event
from tests.unit.training.outer.processes.conftest import tiny_settings, told

pytestmark = pytest.mark.slow

FLIPPED = """
from sharedllm.training.outer.processes import worker
from sharedllm.training.outer.processes.exchange import Held
from sharedllm.training.outer.processes.state import State

honest = worker.Worker._step

def step(self, state, heard, generation):
    update_P = honest(self, state, heard, generation)
    if self._job.number == 2 and state.round == 1:
        after = self._held[0].state
        after.weights_P[7] += 1e-6
        self._held[0] = Held(State(after.round, after.weights_P, after.momentum_P), generation.number)
    return update_P

worker.Worker._step = step
worker.main()
"""

# Stops for ever when it begins its fourth round
HANGING = """
import signal
from sharedllm.training.outer.processes import worker

going = worker.Worker._round

def round_(self, group, generation):
    if self.state.round == 3:
        self._say({"event": "hangs"})
        signal.pause()
    return going(self, group, generation)

worker.Worker._round = round_
worker.main()
"""

LAUNCHER = """
import sys
from pathlib import Path
from sharedllm.training.outer.processes import Crew, host, listen
from tests.unit.training.conftest import counted
from tests.unit.training.outer.processes.conftest import tiny_settings

settings = tiny_settings(rounds=500)
store = host(settings, listen("127.0.0.1", 0))
with Crew(settings, counted(), Path(sys.argv[1]), store=store, numbers=range(2)) as crew:
    for event in crew.events():
        if event["event"] == "round":
            print(*(child.pid for child in crew._children.values()), flush=True)
"""


def test_a_worker_whose_bit_flipped_is_put_out_and_the_others_finish(tmp_path: Path) -> None:
    settings = tiny_settings(workers=4, rounds=5, rule="median", liars=1)
    run = told(settings, tmp_path, program=(sys.executable, "-c", FLIPPED))
    assert (run.ends().keys(), len(set(run.ends().values()))) == ({0, 1, 3}, 1)
    assert "its state differed" in run.of("failed", 2)[0]["why"]


def test_no_worker_outlives_a_launcher_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdout is not None
        children = [psutil.Process(int(pid)) for pid in launcher.stdout.readline().split()]
        launcher.kill()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert (len(children), alive) == (2, [])


def test_two_who_are_cut_off_come_back_to_what_the_other_two_did_without_them(tmp_path: Path) -> None:
    cut = {2, 3}

    def react(event: Event, crew: Crew) -> None:
        if event["event"] == "began" and event["round"] == 1 and event["worker"] in cut:
            crew.freeze(event["worker"])
        if event["event"] == "round" and event["round"] == 3:
            for number in cut:
                crew.thaw(number)

    settings = tiny_settings(workers=4, rounds=60, patience_s=4.0)
    run = told(settings, tmp_path, react)
    members = {event["round"]: event["members"] for event in run.of("round")}
    assert (members[2], members[59]) == ([0, 1], [0, 1, 2, 3])
    assert (run.ends().keys(), len(set(run.ends().values()))) == ({0, 1, 2, 3}, 1)


def test_one_that_never_comes_back_is_ended_with_the_training(tmp_path: Path) -> None:
    def react(event: Event, crew: Crew) -> None:
        if event["event"] == "began" and event["round"] == 1 and event["worker"] == 2:
            crew.freeze(2)

    settings = tiny_settings(workers=4, rounds=4, rule="median", liars=1, patience_s=4.0)
    run = told(settings, tmp_path, react)
    assert (run.ends().keys(), run.of("ended", 2)[0]["code"]) == ({0, 1, 3}, -9)


def test_a_killed_training_is_resumed_to_the_same_bits(tmp_path: Path) -> None:
    settings = tiny_settings(rounds=6)
    undisturbed = told(settings, tmp_path / "undisturbed")

    class Stopped(Exception):
        pass

    hanging = []

    def react(event: Event, crew: Crew) -> None:
        hanging.append(event["event"] == "hangs")
        if sum(hanging) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        told(settings, tmp_path / "resumed", react, program=(sys.executable, "-c", HANGING))
    resumed = told(settings, tmp_path / "resumed")
    assert [event["round"] for event in resumed.of("began", 0)] == [2, 3, 4, 5]
    assert resumed.ends() == undisturbed.ends()
