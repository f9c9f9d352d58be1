"""Two real workers over gloo compute what the simulation of them computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sharedllm.model import Transformer
from sharedllm.training import checkpoint
from sharedllm.training.outer import Plan, simulate
from sharedllm.training.outer.processes.learner import shard
from tests.unit.training.conftest import counted
from tests.unit.training.outer.processes.conftest import Told, tiny_settings, told

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def both(folder: Path) -> Told:
    return told(tiny_settings(), folder)


def test_both_workers_end_with_the_same_bits(both: Told) -> None:
    ends = both.ends()
    assert (ends.keys(), len(set(ends.values()))) == ({0, 1}, 1)


def test_every_round_is_taken_once(both: Told) -> None:
    assert [event["round"] for event in both.of("round", 0)] == [0, 1, 2]


def test_real_processes_give_the_bits_of_the_simulation(both: Told, folder: Path) -> None:
    settings = tiny_settings()
    torch.manual_seed(settings.seed)
    model = Transformer(settings.config)
    shards = [shard(counted(), settings, number) for number in range(2)]
    plan = Plan(workers=2, inner_steps=2)
    simulated = simulate(
        model, shards, settings.recipe, plan, seed=0, validate=lambda model: 0.0, every_steps=100
    )
    identity = {"settings": settings.sha256, "number": 0}
    stored = checkpoint.read(folder / "worker-0.pt", identity)
    assert stored is not None
    assert torch.equal(stored["weights"], simulated.last_P)


def test_no_child_is_left(both: Told) -> None:
    assert [event["code"] for event in both.of("ended")] == [0, 0]
