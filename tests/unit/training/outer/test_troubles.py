"""Liars, leavers and cut lines in a simulated joint training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sharedllm.errors import BadAggregate, BadRecipe
from sharedllm.model import Transformer
from sharedllm.training import Recipe, Streams
from sharedllm.training.outer import Away, Cut, Outcome, Plan, simulate, weights_of

Simulated = Callable[..., Outcome]
ROUNDS = 3


@pytest.fixture
def simulated(
    new_model: Callable[..., Transformer], new_stream: Callable[..., torch.Tensor], light: Recipe
) -> Simulated:
    """Simulate three rounds of four workers that read the same kind of text."""

    def run(**plan: object) -> Outcome:
        whole = Plan(**{"workers": 4, "inner_steps": 2, "outer_lr": 1.0, "outer_momentum": 0.0, **plan})  # type: ignore[arg-type]
        shards = [Streams({"steps": new_stream(1000 + w)}) for w in range(whole.workers)]
        start_P = weights_of(new_model())
        return simulate(
            new_model(),
            shards,
            light,
            whole,
            seed=1,
            validate=lambda model: (weights_of(model) - start_P).norm().item(),
            every_steps=2,
        )

    return run


def moved(outcome: Outcome) -> float:
    return outcome.points[-1].validation_nats


def test_one_huge_liar_destroys_the_mean(simulated: Simulated) -> None:
    outcome = simulated(liars=(2,), attack="scale")
    assert outcome.diverged or moved(outcome) > 50 * moved(simulated())


def test_the_median_bears_one_huge_liar(simulated: Simulated) -> None:
    assert moved(simulated(liars=(2,), attack="scale", rule="median", assumed_liars=1)) < 2 * moved(
        simulated()
    )


def test_what_is_no_number_is_refused_in_every_round(simulated: Simulated) -> None:
    outcome = simulated(liars=(0,), attack="nan", rule="median", assumed_liars=1)
    assert (outcome.refused, outcome.lost_rounds) == (ROUNDS, 0)


def test_a_round_with_more_liars_than_the_rule_bears_is_lost(simulated: Simulated) -> None:
    outcome = simulated(liars=(0, 1), attack="nan", rule="median", assumed_liars=1)
    assert outcome.lost_rounds == ROUNDS
    assert moved(outcome) == 0


@pytest.mark.parametrize("attack", ["sign-flip", "label-flip", "stale", "alie", "optimised-ipm"])
def test_a_lie_changes_what_the_mean_becomes(attack: str, simulated: Simulated) -> None:
    assert not torch.equal(simulated(liars=(3,), attack=attack).last_P, simulated().last_P)


def test_all_but_one_being_stale_a_round_is_nearly_the_first_again(simulated: Simulated) -> None:
    points = simulated(liars=(1, 2, 3), attack="stale", rule="median").points
    apart = points[1].validation_nats / points[0].validation_nats
    assert 1.5 < apart < 2.1


def test_an_unknown_attack_is_refused(simulated: Simulated) -> None:
    with pytest.raises(BadAggregate, match="no attack 'shout'"):
        simulated(liars=(1,), attack="shout")


def test_a_worker_that_is_away_neither_trains_nor_sends(simulated: Simulated, light: Recipe) -> None:
    whole, without = simulated().points[-1], simulated(away=(Away(1, 1, 2),)).points[-1]
    assert whole.tokens - without.tokens == 2 * light.tokens_per_step
    assert whole.sent_bytes * 11 == without.sent_bytes * 12


def test_when_all_are_away_nothing_changes(simulated: Simulated) -> None:
    outcome = simulated(away=tuple(Away(w, 1, 3) for w in range(4)))
    assert outcome.points[0].validation_nats == moved(outcome)


def test_a_cut_off_worker_is_to_the_others_as_if_it_were_away(simulated: Simulated) -> None:
    cut, away = simulated(cuts=(Cut((0,), 1, ROUNDS),)), simulated(away=(Away(0, 1, ROUNDS),))
    assert torch.equal(cut.last_P, away.last_P)


def test_when_a_cut_heals_the_larger_side_keeps_its_weights(simulated: Simulated) -> None:
    # the three go on as if alone; the fourth then starts from their weights
    cut, away = simulated(cuts=(Cut((0,), 1, 2),)), simulated(away=(Away(0, 1, 2),))
    assert torch.allclose(cut.last_P, away.last_P, atol=0.05)


def test_a_side_that_is_too_small_for_its_rule_waits(simulated: Simulated, light: Recipe) -> None:
    outcome = simulated(rule="median", assumed_liars=1, cuts=(Cut((0, 1), 1, 2),))
    assert outcome.points[-1].tokens == 4 * light.tokens - 4 * 2 * light.tokens_per_step


@pytest.mark.parametrize(
    "plan",
    [
        {"liars": (4,)},
        {"away": (Away(9, 0, 1),)},
        {"cuts": (Cut((-1,), 0, 1),)},
        {"inner_steps": 0},
        {"codec": "zip"},
        {"levels": "random"},
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(plan: dict[str, object]) -> None:
    with pytest.raises(BadRecipe):
        Plan(**{"workers": 4, "inner_steps": 1, **plan})  # type: ignore[arg-type]


def test_workers_hear_those_on_their_side_of_every_cut() -> None:
    plan = Plan(5, 1, cuts=(Cut((0, 1), 0, 2), Cut((1, 2), 1, 3)), away=(Away(4, 0, 1),))
    assert [plan.groups(r) for r in range(4)] == [
        [[0, 1], [2, 3]],
        [[0], [1], [2], [3, 4]],
        [[0, 3, 4], [1, 2]],
        [[0, 1, 2, 3, 4]],
    ]
