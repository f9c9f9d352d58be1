"""The loop learns, counts, resumes exactly, and refuses what is not its own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sharedllm.errors import BadRecipe
from sharedllm.model import Transformer
from sharedllm.training import Recipe, Report, Step, Streams, train
from tests.processes import Program
from tests.unit.training.conftest import TINY, counted, tiny_model

# Runs in a process of its own: trains past its second checkpoint, says so, and then hangs until it is killed
KILLED = """
import runpy, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from sharedllm.training import Streams, train
tiny = runpy.run_path(sys.argv[1])

def hang(step):
    if step.step == 9:
        print("ready", flush=True)
        sys.stdin.read()

streams = Streams({"up": tiny["counting"](), "threes": tiny["counting"](2_000, 3)})
train(tiny["tiny_model"](), streams, tiny["TINY"], seed=1, checkpoint=Path(sys.argv[2]), on_step=hang)
"""

NewModel = Callable[..., Transformer]
NewStream = Callable[..., torch.Tensor]


def weights(model: Transformer) -> list[torch.Tensor]:
    return list(model.state_dict().values())


@pytest.fixture(scope="module")
def undisturbed() -> tuple[Report, Transformer]:
    model = tiny_model()
    return train(model, counted(), TINY, seed=1), model


def test_a_tiny_model_learns_more_than_letter_frequencies(
    streams: Streams, recipe: Recipe, new_model: NewModel
) -> None:
    longer = dataclasses.replace(recipe, tokens=recipe.tokens_per_step * 100)
    report = train(new_model(), streams, longer, seed=0)
    counts = torch.bincount(torch.cat(list(streams.tokens.values())), minlength=64).double()
    p = counts / counts.sum()
    assert sum(report.losses_nats[-10:]) / 10 < 0.8 * -(p * p.log()).sum().item()


def test_adamw_alone_learns_too(streams: Streams, recipe: Recipe, new_model: NewModel) -> None:
    plain = dataclasses.replace(recipe, optimizer="adamw", lr=1e-2, tokens=recipe.tokens_per_step * 60)
    report = train(new_model(), streams, plain, seed=0)
    assert report.losses_nats[-1] < 0.8 * report.losses_nats[0]


def test_equal_seeds_give_equal_bits(
    streams: Streams, recipe: Recipe, new_model: NewModel, undisturbed: tuple[Report, Transformer]
) -> None:
    again = new_model()
    report = train(again, streams, recipe, seed=1)
    assert report.losses_nats == undisturbed[0].losses_nats
    assert all(map(torch.equal, weights(again), weights(undisturbed[1])))


def test_another_seed_reads_other_text(
    streams: Streams, recipe: Recipe, new_model: NewModel, undisturbed: tuple[Report, Transformer]
) -> None:
    assert train(new_model(), streams, recipe, seed=2).losses_nats != undisturbed[0].losses_nats


def interrupted_at(stop: int) -> Callable[[Step], None]:
    def interrupt(step: Step) -> None:
        if step.step == stop:
            raise KeyboardInterrupt

    return interrupt


@pytest.mark.parametrize("stop", [2, 5, 11])
def test_an_interrupted_run_resumes_bit_for_bit(
    stop: int,
    streams: Streams,
    recipe: Recipe,
    new_model: NewModel,
    undisturbed: tuple[Report, Transformer],
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(new_model(), streams, recipe, seed=1, checkpoint=path, on_step=interrupted_at(stop))
    resumed = new_model()
    report = train(resumed, streams, recipe, seed=1, checkpoint=path)
    assert report.losses_nats == undisturbed[0].losses_nats
    assert all(map(torch.equal, weights(resumed), weights(undisturbed[1])))


def test_a_killed_run_resumes_bit_for_bit(
    streams: Streams,
    recipe: Recipe,
    new_model: NewModel,
    undisturbed: tuple[Report, Transformer],
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.pt"
    tiny = Path(__file__).with_name("conftest.py")
    with Program(KILLED, tiny, path) as run:
        said = run.stdout.readline()
        run.kill()
    assert said == "ready\n"
    resumed, steps = new_model(), list[Step]()
    report = train(resumed, streams, recipe, seed=1, checkpoint=path, on_step=steps.append)
    assert [step.step for step in steps] == [8, 9, 10, 11]
    assert report.losses_nats == undisturbed[0].losses_nats
    assert all(map(torch.equal, weights(resumed), weights(undisturbed[1])))


def test_a_finished_run_does_not_run_again(
    streams: Streams, recipe: Recipe, new_model: NewModel, tmp_path: Path
) -> None:
    path = tmp_path / "run.pt"
    train(new_model(), streams, recipe, seed=1, checkpoint=path)
    steps: list[Step] = []
    train(new_model(), streams, recipe, seed=1, checkpoint=path, on_step=steps.append)
    assert steps == []


@pytest.mark.parametrize(
    ("other", "named"),
    [({"lr": 0.03}, "recipe"), ({"seed": 2}, "seed"), ({"model": 5}, "start"), ({"stride": 7}, "text")],
)
def test_a_checkpoint_of_another_run_is_refused(
    other: dict[str, Any],
    named: str,
    recipe: Recipe,
    new_model: NewModel,
    new_stream: NewStream,
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.pt"
    train(new_model(), Streams({"up": new_stream()}), recipe, seed=1, checkpoint=path)
    changed = dataclasses.replace(recipe, lr=other.get("lr", recipe.lr))
    text = Streams({"up": new_stream(stride=other.get("stride", 1))})
    with pytest.raises(BadRecipe, match=rf"belongs to another run \({named} "):
        train(new_model(other.get("model", 0)), text, changed, seed=other.get("seed", 1), checkpoint=path)


@pytest.mark.parametrize("kept_bytes", [0, 10, 1000])
def test_a_damaged_checkpoint_is_a_sentence(
    kept_bytes: int, streams: Streams, recipe: Recipe, new_model: NewModel, tmp_path: Path
) -> None:
    path = tmp_path / "run.pt"
    train(new_model(), streams, recipe, seed=1, checkpoint=path)
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(BadRecipe, match="no readable checkpoint"):
        train(new_model(), streams, recipe, seed=1, checkpoint=path)


def test_the_budget_is_counted_in_tokens(streams: Streams, recipe: Recipe, new_model: NewModel) -> None:
    short = dataclasses.replace(recipe, tokens=recipe.tokens_per_step * 3 + 5)
    steps: list[Step] = []
    report = train(new_model(), streams, short, seed=0, on_step=steps.append)
    assert (report.tokens, [step.tokens for step in steps]) == (768, [256, 512, 768])


def test_a_loss_that_is_not_finite_stops_the_run(
    streams: Streams, recipe: Recipe, new_model: NewModel
) -> None:
    model = new_model()
    with torch.no_grad():
        model.norm.weight.fill_(math.nan)
    with pytest.raises(BadRecipe, match="diverged"):
        train(model, streams, recipe, seed=0)


def test_an_empty_stream_is_refused(new_stream: NewStream) -> None:
    with pytest.raises(BadRecipe, match="nothing to train on"):
        Streams({"up": new_stream(), "none": torch.tensor([1])})
