"""Simulated joint training: equal to plain training where it must be, and counted to the byte."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

from sharedllm.errors import BadAggregate, BadRecipe
from sharedllm.model import Transformer
from sharedllm.training import Recipe, Streams, train
from sharedllm.training.loop import Run
from sharedllm.training.outer import Outcome, Plan, message_bytes, put_weights, simulate, weights_of
from sharedllm.training.outer.worker import Flipped

SHARDS_SEED = 5
NewModel = Callable[..., Transformer]
NewStream = Callable[..., torch.Tensor]
Simulated = Callable[..., Outcome]


class Sgd(Run):
    """Inner training by plain gradient descent."""

    def __init__(self, model: Transformer, streams: Streams, recipe: Recipe, seed: int) -> None:
        super().__init__(model, streams, recipe, seed)
        self.optimizers = [torch.optim.SGD(model.parameters(), lr=recipe.lr)]
        self.rates = [[recipe.lr]]


@pytest.fixture
def shards(new_stream: NewStream) -> list[Streams]:
    return [Streams({"steps": new_stream(1000, stride)}) for stride in (1, 3, 5, 7)]


@pytest.fixture
def simulated(new_model: NewModel, shards: list[Streams], light: Recipe) -> Simulated:
    """Simulate the tiny recipe; ``plan`` needs no workers where it has those of the four shards."""

    def run(
        inner_steps: int = 2, *, recipe: Recipe | None = None, kind: type[Run] = Run, **plan: object
    ) -> Outcome:
        whole = Plan(**{"workers": 4, "inner_steps": inner_steps, **plan})  # type: ignore[arg-type]
        return simulate(
            new_model(),
            shards[: whole.workers],
            light if recipe is None else recipe,
            whole,
            seed=SHARDS_SEED,
            validate=lambda model: weights_of(model).norm().item(),
            every_steps=light.steps,
            kind=kind,
        )

    return run


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_one_worker_that_is_averaged_plainly_trains_as_if_it_were_alone_bit_for_bit(
    inner_steps: int, simulated: Simulated, new_model: NewModel, shards: list[Streams], light: Recipe
) -> None:
    alone = new_model()
    train(alone, shards[0], light, seed=SHARDS_SEED)
    joint = simulated(inner_steps, workers=1, outer_lr=1.0, outer_momentum=0.0)
    assert torch.equal(joint.last_P, weights_of(alone))


def test_one_step_of_gradient_descent_each_is_descent_on_the_large_batch(
    simulated: Simulated, new_model: NewModel, shards: list[Streams], light: Recipe
) -> None:
    plain = dataclasses.replace(light, lr=0.5, clip=1e9, balance=0.0, warmup=0.0, decay=0.0)
    joint = simulated(1, recipe=plain, kind=Sgd, outer_lr=1.0, outer_momentum=0.0)

    class Large(Streams):
        def batch(self, step: int, seed: int, rows: int, window: int) -> torch.Tensor:
            each = (s.batch(step, seed + 1_000_003 * w, rows, window) for w, s in enumerate(shards))
            return torch.cat(list(each))

    model = new_model()
    start_P = weights_of(model)
    run = Sgd(model.train(), Large(shards[0].tokens), plain, SHARDS_SEED)
    for step in range(plain.steps):
        run.step(step)
    apart = (joint.last_P - weights_of(model)).norm() / (weights_of(model) - start_P).norm()
    assert apart < 1e-4  # fp32 sums in another order, over 6 steps


def test_equal_seeds_give_equal_bits(simulated: Simulated) -> None:
    liars = {"liars": (1,), "attack": "gaussian", "codec": "2bit"}
    assert torch.equal(simulated(**liars).last_P, simulated(**liars).last_P)


@pytest.mark.parametrize("codec", ["fp32", "int8", "2bit", "topk"])
def test_every_message_is_counted_once_to_the_byte(codec: str, simulated: Simulated, light: Recipe) -> None:
    outcome = simulated(2, codec=codec)
    numbers = len(outcome.last_P)
    assert outcome.points[-1].sent_bytes == 3 * 4 * message_bytes(codec, numbers)  # type: ignore[arg-type]


def test_a_worker_alone_sends_nothing(simulated: Simulated) -> None:
    assert simulated(workers=1, codec="2bit").points[-1].sent_bytes == 0


def test_the_tokens_of_all_workers_count(simulated: Simulated, light: Recipe) -> None:
    assert simulated().points[-1].tokens == 4 * light.tokens


def test_shards_and_workers_must_match(simulated: Simulated) -> None:
    with pytest.raises(BadRecipe, match="5 workers need as many shards, not 4"):
        simulated(workers=5)


def test_rounds_must_divide_the_steps(simulated: Simulated) -> None:
    with pytest.raises(BadRecipe, match="6 steps must divide into rounds of 4"):
        simulated(4)


def test_a_rule_that_refuses_so_many_liars_is_refused_before_work(simulated: Simulated) -> None:
    with pytest.raises(BadAggregate, match="krum with 1 liars among 4"):
        simulated(rule="krum", assumed_liars=1)


def test_weights_that_lead_nowhere_end_a_run_without_an_error(simulated: Simulated, light: Recipe) -> None:
    wild = dataclasses.replace(light, lr=1e20, adamw_lr=1e20)
    outcome = simulated(1, recipe=wild)
    assert outcome.diverged
    assert outcome.best is None


def test_the_best_weights_are_those_of_the_least_validation_loss(
    new_model: NewModel, shards: list[Streams], light: Recipe
) -> None:
    seen: list[torch.Tensor] = []
    losses = iter([3.0, 1.0, math.nan])

    def validate(model: Transformer) -> float:
        seen.append(weights_of(model))
        return next(losses)

    outcome = simulate(new_model(), shards, light, Plan(4, 1), seed=0, validate=validate, every_steps=2)
    assert outcome.best is outcome.points[1]
    assert outcome.best.steps == 4
    assert torch.equal(outcome.best_P, seen[1])


def test_the_model_that_a_simulation_starts_from_stays_as_it_is(
    new_model: NewModel, shards: list[Streams], light: Recipe
) -> None:
    model = new_model()
    simulate(model, shards, light, Plan(4, 3), seed=0, validate=lambda _: 0.0, every_steps=6)
    assert torch.equal(weights_of(model), weights_of(new_model()))


def test_joint_training_lowers_the_loss(new_model: NewModel, shards: list[Streams], light: Recipe) -> None:
    def loss_nats(model: Transformer) -> float:
        rows = torch.cat([shard.batch(999, 1, 4, 31) for shard in shards])
        with torch.no_grad():
            logits = model(rows[:, :-1]).flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, rows[:, 1:].flatten()).item()

    plan = Plan(4, 3, codec="2bit", outer_lr=1.0, outer_momentum=0.0)
    longer = dataclasses.replace(light, tokens=2 * light.tokens)
    outcome = simulate(new_model(), shards, longer, plan, seed=0, validate=loss_nats, every_steps=12)
    assert outcome.points[-1].validation_nats < 0.97 * loss_nats(new_model())


def test_the_flipped_lesson_is_the_mirrored_token(
    new_model: NewModel, shards: list[Streams], light: Recipe
) -> None:
    tokens = torch.tensor([[5, 0, 63]])
    assert Flipped(new_model(), shards[0], light, 0).targets(tokens).tolist() == [[63, 0]]


def test_weights_put_into_a_model_are_the_models(new_model: NewModel) -> None:
    model = new_model()
    put_weights(model, torch.ones_like(weights_of(model)))
    assert all(bool((parameter == 1).all()) for parameter in model.parameters())
