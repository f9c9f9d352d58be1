"""The stated cost of pruning and of power means, on any weights, floors and evidence."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharedllm.combiner import (
    FixedShare,
    Pruned,
    fixed_share_slack,
    longest_sleep,
    mixture,
    power_slack,
    pruning_cost,
    pruning_slack,
)

torch.set_num_threads(1)
steady = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**31)


def evidence(seed: int, n: int, t: int, v: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = 10.0 ** float(torch.randint(-2, 4, (), generator=generator))
    return (spread * torch.randn(n, t, v, generator=generator, dtype=torch.float64)).log_softmax(-1)


def weights(seed: int, n: int, t: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return (4 * torch.randn(n, t, generator=generator, dtype=torch.float64)).log_softmax(0)


def tokens(seed: int, t: int, v: int) -> Tensor:
    return torch.randint(v, (t,), generator=torch.Generator().manual_seed(seed + 2))


@steady
@given(seeds, st.integers(1, 6), st.integers(1, 6), st.floats(0, 1))
def test_a_token_costs_what_is_stated_whoever_sleeps(seed, n, t, fraction):
    logp_NTV, logw_NT, came_T = evidence(seed, n, t, 9), weights(seed, n, t), tokens(seed, t, 9)
    awake_NT = logw_NT >= math.log(max(fraction / n, 1e-30))
    slack = pruning_slack(logp_NTV, logw_NT, awake_NT, came_T).minimum()
    assert min(slack.values()) >= -1e-9, slack


@steady
@given(seeds, st.integers(2, 6), st.integers(2, 12), st.floats(0, 1), st.floats(0, 40))
def test_no_token_costs_more_than_the_span_of_logits_and_the_sleeping_weight_say(seed, n, v, fraction, span):
    generator = torch.Generator().manual_seed(seed)
    logits_NTV = span * torch.rand(n, 20, v, generator=generator, dtype=torch.float64)
    logits_NTV[0] = logits_NTV[1:].amax(0).neg()  # somebody who knows what nobody else does
    logits_NTV[0] += span - logits_NTV[0].amax(-1, keepdim=True)
    logp_NTV = logits_NTV.clamp(min=0).log_softmax(-1)
    course = Pruned(FixedShare(n, 0.05), fraction / n).course(logp_NTV[:, :, 0])
    lost_TV = mixture(logp_NTV, course.all_logw_NT) - mixture(logp_NTV, course.logw_NT)
    asleep_T = torch.where(course.awake_NT, 0.0, course.all_logw_NT.exp()).sum(0)
    for lost_V, asleep in zip(lost_TV, asleep_T.tolist(), strict=True):
        assert float(lost_V.max()) <= pruning_cost(asleep, 2 * span) + 1e-9


@steady
@given(st.floats(0, 1), st.floats(0, 1e4))
def test_what_pruning_costs_lies_between_nothing_and_what_the_sleeper_is_ahead(asleep, ahead_nats):
    cost_nats = pruning_cost(asleep, ahead_nats)
    assert -1e-12 <= cost_nats <= ahead_nats + 1e-12
    assert cost_nats >= math.log(asleep) + ahead_nats - 1e-9 if asleep else cost_nats == 0.0


@steady
@given(seeds, st.integers(2, 5), st.integers(1, 30), st.floats(0, 1), st.floats(0, 1))
def test_over_a_text_the_price_of_switching_holds_while_a_specialist_is_awake(seed, n, t, share, fraction):
    alpha = share * (n - 1) / n
    a_NT = evidence(seed, n, t, 5)[:, :, 0].clamp(min=-1e3)
    course = Pruned(FixedShare(n, alpha), fraction / n).course(a_NT)
    slack_K = fixed_share_slack(course.scored_NT, course.all_logw_NT, alpha, most=6)
    assert (slack_K >= -1e-7).all(), slack_K


@steady
@given(seeds, st.integers(1, 5), st.integers(1, 20), st.floats(0, 1))
def test_the_scored_evidence_mixes_to_what_those_awake_say(seed, n, t, fraction):
    a_NT = evidence(seed, n, t, 5)[:, :, 0]
    course = Pruned(FixedShare(n, 0.02 * (n > 1)), fraction / n).course(a_NT)
    served_T = mixture(a_NT, course.logw_NT)
    torch.testing.assert_close(mixture(course.scored_NT, course.all_logw_NT), served_T, atol=1e-9, rtol=1e-12)


@steady
@given(seeds, st.integers(2, 5), st.floats(0.01, 1), st.floats(0, 0.95))
def test_nobody_sleeps_longer_than_stated(seed, n, share, fraction):
    alpha, floor = share * (n - 1) / n, fraction / n
    a_NT = evidence(seed, n, 60, 5)[:, :, 0]
    asleep_NT = ~Pruned(FixedShare(n, alpha), floor).course(a_NT).awake_NT
    longest = 0
    for row_T in asleep_NT.tolist():
        run = 0
        for asleep in row_T:
            run = run + 1 if asleep else 0
            longest = max(longest, run)
    assert longest <= longest_sleep(n, alpha, floor)


@steady
@given(seeds, st.integers(1, 6), st.integers(1, 20), st.floats(0, 1))
def test_less_than_n_times_the_floor_sleeps_and_somebody_is_awake(seed, n, t, fraction):
    course = Pruned(FixedShare(n, 0.01 * (n > 1)), fraction / n).course(evidence(seed, n, t, 5)[:, :, 0])
    asleep_T = torch.where(course.awake_NT, 0.0, course.all_logw_NT.exp()).sum(0)
    assert (asleep_T <= (n - 1) * fraction / n + 1e-12).all()
    assert course.awake_NT.any(0).all()
    assert (course.logw_NT.logsumexp(0).abs() <= 1e-9).all()


@steady
@given(seeds, st.integers(1, 5), st.integers(1, 6), st.floats(0, 1), st.sampled_from([1.0, 1e2, 1e4]))
def test_a_weighted_power_mean_keeps_its_floors_and_sums_to_one(seed, n, t, r, uneven):
    logp_NTV, came_T = evidence(seed, n, t, 9).clamp(min=-1e4), tokens(seed, t, 9)
    logp_NTV = logp_NTV - logp_NTV.logsumexp(-1, keepdim=True)
    logw_NT = (uneven * weights(seed, n, t)).log_softmax(0)
    slack = power_slack(logp_NTV, logw_NT, r, came_T)
    assert min(slack.minimum().values()) >= -1e-9, slack
