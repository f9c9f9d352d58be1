"""Specialists that sleep: who is asked, what is saved, what a token can cost, and that they come back."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sharedllm.combiner import (
    Bayes,
    Combiner,
    FixedShare,
    Pruned,
    Router,
    Static,
    Uniform,
    longest_sleep,
    mixture,
    pruning_cost,
    pruning_slack,
)
from sharedllm.errors import BadMixture

torch.set_num_threads(1)


def switching(blocks: int = 4, length: int = 250) -> Tensor:
    """Four specialists, of whom another one knows each block of the text by one nat per token."""
    generator = torch.Generator().manual_seed(0)
    a_NT = -3 + 0.3 * torch.randn(4, blocks * length, generator=generator, dtype=torch.float64)
    for block in range(blocks):
        a_NT[block % 4, block * length : (block + 1) * length] += 1
    return a_NT


def test_a_sleeper_comes_back_when_its_subject_does():
    course = Pruned(FixedShare(4, 0.01), 0.05).course(switching())
    last_block = course.logw_NT[:, -100:].exp().mean(1)
    assert int(last_block.argmax()) == 3
    assert last_block[3] > 0.8


def test_pruning_asks_far_fewer_and_loses_little_where_subjects_switch():
    a_NT = switching()
    course = Pruned(FixedShare(4, 0.01), 0.05).course(a_NT)
    pruned_nats = -float(mixture(course.scored_NT, course.all_logw_NT).mean())
    whole_nats = -float(mixture(a_NT, FixedShare(4, 0.01).run(a_NT)).mean())
    assert course.asked < 0.6 * a_NT.numel()
    assert pruned_nats < whole_nats + 0.05


def test_what_was_asked_read_late_or_never_adds_up_to_every_specialist_and_token():
    awake_NT = torch.tensor([[1, 0, 0, 1, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]).bool()
    course = Pruned(Uniform(3), 0.0).course(torch.zeros(3, 5))
    course = type(course)(awake_NT, course.logw_NT, course.all_logw_NT, course.scored_NT)
    assert (course.asked, course.caught_up, course.never_read) == (8, 2, 5)


def test_a_sleeper_that_alone_knew_the_token_costs_more_than_its_weight_says():
    a_NT = torch.tensor([[-30.0], [-1.0]], dtype=torch.float64)
    logw_NT = torch.tensor([[0.99], [0.01]], dtype=torch.float64).log()
    awake_NT = torch.tensor([[True], [False]])
    lost_nats = float(mixture(a_NT, logw_NT) - mixture(a_NT[:1], torch.zeros(1)))
    assert lost_nats > 20 > -math.log(1 - 0.01)
    assert float(pruning_slack(a_NT, logw_NT, awake_NT).lost_T) == pytest.approx(0, abs=1e-9)


def test_under_bayes_a_sleeper_never_wakes():
    a_NT = switching()
    course = Pruned(Bayes(4), 0.05).course(a_NT)
    assert not course.awake_NT[1:, 100:].any()
    assert longest_sleep(4, 0.0, 0.05) == math.inf


def test_a_sleeper_keeps_the_weight_that_it_had_under_bayes():
    course = Pruned(Bayes(4), 0.05).course(switching())
    asleep_from = int(course.awake_NT[1].to(torch.int).argmin())
    assert (course.all_logw_NT[1, asleep_from:] - course.all_logw_NT[1, asleep_from]).abs().max() < 1e-9


def test_by_default_less_than_a_quarter_sleeps_and_nobody_for_long():
    a_NT = switching(blocks=4, length=60)
    course = Pruned(FixedShare(4, 0.02)).course(a_NT)
    assert 0 < 1 - course.asked / a_NT.numel() < 0.75
    assert torch.where(course.awake_NT, 0.0, course.all_logw_NT.exp()).sum(0).max() < 0.25
    assert max(longest_sleep(n, 0.02, 0.25 / n) for n in range(2, 200)) == 14


def test_a_sleeper_that_alone_may_know_a_token_costs_without_bound():
    assert pruning_cost(0.01, math.inf) == math.inf
    assert pruning_cost(0.0, math.inf) == 0.0


def test_a_floor_of_zero_prunes_nobody():
    a_NT = switching()
    weights = FixedShare(4, 0.01)
    assert torch.equal(Pruned(weights, 0.0).run(a_NT), weights.run(a_NT))


def test_the_largest_floor_still_leaves_somebody():
    course = Pruned(FixedShare(3, 0.01), 1 / 3).course(torch.zeros(3, 20))
    assert course.awake_NT.any(0).all()


def test_a_sleeper_may_answer_nan_and_one_awake_may_not():
    pruned = Pruned(Static(torch.tensor([0.98, 0.01, 0.01]).log()), 0.05)
    assert pruned.awake_N.tolist() == [True, False, False]
    pruned.observe(torch.tensor([-1.0, math.nan, math.inf]))
    with pytest.raises(BadMixture, match="NaN"):
        pruned.observe(torch.tensor([math.nan, -1.0, -1.0]))


def test_a_combiner_reads_no_row_of_a_sleeper():
    combiner = Combiner(Pruned(Static(torch.tensor([0.6, 0.39, 0.01]).log()), 0.05))
    logp_NV = torch.randn(3, 7, dtype=torch.float64).log_softmax(1)
    expected_V = combiner.joint(logp_NV)
    logp_NV[2] = math.nan
    assert torch.equal(combiner.joint(logp_NV), expected_V)


def test_a_routers_weights_can_be_pruned_too():
    router = Router(torch.eye(2, dtype=torch.float64) * 9, torch.zeros(2), torch.zeros(2), torch.ones(2))
    context_TF = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    logw_NT = Pruned(router, 0.1).run(torch.zeros(2, 2), context_TF)
    assert logw_NT.exp().tolist() == [[1.0, 0.0], [0.0, 1.0]]
    with pytest.raises(BadMixture, match="context"):
        Pruned(router, 0.1).run(torch.zeros(2, 2))


def test_pruning_what_is_pruned_is_refused():
    with pytest.raises(BadMixture, match="already pruned"):
        Pruned(Pruned(Uniform(3), 0.1), 0.1)


@pytest.mark.parametrize("floor", [-0.1, 0.34, math.nan])
def test_a_floor_that_might_leave_nobody_is_refused(floor):
    with pytest.raises(BadMixture, match="floor of 3"):
        Pruned(Uniform(3), floor)


def test_a_course_over_no_token_is_refused():
    with pytest.raises(BadMixture, match="at least one token"):
        Pruned(Uniform(3), 0.1).course(torch.zeros(3, 0))
