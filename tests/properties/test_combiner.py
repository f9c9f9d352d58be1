"""The inequalities of ``sharedllm.combiner.bounds``, on random and on hostile log-probabilities.

Three kinds of stream: what real models give (log-softmax of logits, down to about −30 nats), hostile finite
values (±1e4, which no distribution has, but which the algebra must survive), and zero probabilities.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharedllm.combiner import (
    Bayes,
    FixedShare,
    Static,
    Uniform,
    best_switching,
    fixed_share_slack,
    geometric_mean,
    mixture,
    power_mean,
    sequence_slack,
    token_slack,
    tolerance,
)

torch.set_num_threads(1)
steady = settings(deadline=None)  # no timing decides a test
seeds = st.integers(0, 2**31)
sizes = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(2, 40))
dtypes = st.sampled_from([torch.float32, torch.float64])


def realistic(seed: int, size: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = 0.1 + 5 * torch.rand((), generator=generator)
    return (spread * torch.randn(size, generator=generator)).to(dtype).log_softmax(-1).clamp(min=-32)


def hostile(seed: int, n: int, t: int, dtype: torch.dtype, zeros: bool) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = 10.0 ** torch.randint(-8, 5, (n, t), generator=generator)
    a_NT = (torch.rand(n, t, generator=generator, dtype=torch.float64) * 2 - 1) * scale
    if zeros:
        a_NT[torch.rand(n, t, generator=generator) < 0.3] = -math.inf
    if n > 1:
        a_NT[-1] = a_NT[0]  # a duplicate
    return a_NT.to(dtype)


def some_weights(seed: int, n: int, t: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return (3 * torch.randn(n, t, generator=generator, dtype=torch.float64)).log_softmax(0)


@steady
@given(seeds, sizes, dtypes)
def test_every_token_inequality_holds_within_the_stated_floor_where_real_models_live(seed, size, dtype):
    floor = {torch.float32: 2e-6, torch.float64: 1e-12}[dtype]
    logp_NTV = realistic(seed, size, dtype)
    logp_NTV = logp_NTV - logp_NTV.logsumexp(-1, keepdim=True)
    tokens_T = torch.randint(size[2], (size[1],), generator=torch.Generator().manual_seed(seed))
    for logw in (Uniform(size[0]).logw_N, some_weights(seed, size[0], size[1])):
        slack = token_slack(logp_NTV, logw, tokens_T).minimum()
        assert min(slack.values()) >= -floor, slack


@steady
@given(seeds, sizes, dtypes, st.booleans())
def test_every_token_inequality_holds_within_ulps_on_hostile_values(seed, size, dtype, zeros):
    n, t, _ = size
    a_NT = hostile(seed, n, t, dtype, zeros)
    largest = float(a_NT[a_NT > -math.inf].abs().max()) if (a_NT > -math.inf).any() else 0.0
    for logw in (Uniform(n).logw_N, some_weights(seed, n, t)):
        slack = token_slack(a_NT, logw).minimum()
        assert min(slack.values()) >= -tolerance(dtype, largest + 20), slack


@steady
@given(seeds, sizes)
def test_the_uniform_mixture_lies_between_best_less_ln_n_and_best(seed, size):
    a_NT = realistic(seed, size, torch.float64)[:, :, 0]
    m_T = mixture(a_NT, Uniform(size[0]).logw_N)
    assert (m_T <= a_NT.amax(0) + 1e-12).all()
    assert (m_T >= a_NT.amax(0) - math.log(size[0]) - 1e-12).all()
    assert (m_T >= a_NT.mean(0) - 1e-12).all()


@steady
@given(seeds, sizes, st.booleans())
def test_bayes_loses_at_most_ln_n_to_the_best_on_a_whole_text_and_obeys_its_identity(seed, size, zeros):
    n, t, _ = size
    a_NT = hostile(seed, n, t, torch.float64, zeros).clamp(max=0)
    assume(bool((a_NT.sum(1) > -math.inf).any()))
    slack = sequence_slack(a_NT, Bayes(n).run(a_NT))
    allowed = tolerance(torch.float64, t * 1e4)
    assert slack.within_best_nats >= -allowed
    assert abs(slack.identity_residual_nats) <= allowed
    best_nats = min(slack.specialists_nats)
    assert slack.total_nats <= best_nats + math.log(n) + allowed


@steady
@given(seeds, st.integers(1, 5), st.integers(1, 30), st.floats(0, 1))
def test_fixed_share_pays_its_price_for_every_number_of_switches(seed, n, t, fraction):
    a_NT = realistic(seed, (n, t, 7), torch.float64)[:, :, 0]
    alpha = fraction * (n - 1) / n
    slack_K = fixed_share_slack(a_NT, FixedShare(n, alpha).run(a_NT), alpha, most=6)
    assert (slack_K >= -1e-9).all(), slack_K


@steady
@given(seeds, st.integers(1, 4), st.integers(1, 6), st.integers(0, 3))
def test_the_best_switching_sequence_is_the_one_an_exhaustive_search_finds(seed, n, t, most):
    a_NT = realistic(seed, (n, t, 5), torch.float64)[:, :, 0]
    least = math.inf
    for path in torch.cartesian_prod(*[torch.arange(n)] * t).reshape(-1, t).tolist():
        if sum(x != y for x, y in itertools.pairwise(path)) <= most:
            least = min(least, -sum(float(a_NT[i, k]) for k, i in enumerate(path)))
    assert float(best_switching(a_NT, most)[-1]) == pytest.approx(least, abs=1e-12)


@steady
@given(
    seeds, st.integers(1, 5), st.integers(1, 12), st.booleans(), st.sampled_from(["bayes", "share", "even"])
)
def test_running_over_a_text_equals_updating_token_by_token(seed, n, t, zeros, kind):
    a_NT = hostile(seed, n, t, torch.float64, zeros)
    whole = {"bayes": Bayes(n), "share": FixedShare(n, 0.3 * (n - 1) / n), "even": Uniform(n)}[kind]
    online = {"bayes": Bayes(n), "share": FixedShare(n, 0.3 * (n - 1) / n), "even": Uniform(n)}[kind]
    logw_NT = whole.run(a_NT)
    for t_ in range(t):
        # e^logw, not logw: at ±1e4 the log of a vanished weight carries an error that its weight does not.
        torch.testing.assert_close(logw_NT[:, t_].exp(), online.logw_N.exp(), atol=1e-9, rtol=0)
        online.update(a_NT[:, t_])
    assert (logw_NT.logsumexp(0).abs() < 1e-9).all()


@steady
@given(seeds, st.integers(1, 5), st.integers(1, 10), st.integers(0, 9))
def test_weights_never_depend_on_the_token_they_weigh(seed, n, t, at):
    at = min(at, t - 1)
    a_NT = realistic(seed, (n, t, 4), torch.float64)[:, :, 0]
    other_NT = a_NT.clone()
    other_NT[:, at] = torch.linspace(-9, -1, n, dtype=torch.float64)
    for weights in (Bayes(n), FixedShare(n, 0.2 * (n - 1) / n)):
        assert torch.equal(weights.run(a_NT)[:, : at + 1], weights.run(other_NT)[:, : at + 1])


@steady
@given(seeds, st.integers(1, 5), st.integers(1, 40))
def test_static_weights_are_within_their_certificate_of_every_specialist_on_their_own_text(seed, n, t):
    a_NT = realistic(seed, (n, t, 9), torch.float64)[:, :, 0]
    static = Static.fit(a_NT, gap_nats=1e-4)
    per_token = mixture(a_NT, static.logw_N).mean()
    assert static.gap_nats <= 1e-4
    assert per_token >= a_NT.mean(1).max() - static.gap_nats - 1e-12
    assert per_token >= mixture(a_NT, some_weights(seed, n, 1)[:, 0]).mean() - static.gap_nats - 1e-12


@steady
@given(seeds, st.integers(1, 6), st.integers(1, 30), st.integers(1, 5))
def test_clones_of_the_worst_specialist_cost_bayes_at_most_ln_of_n_plus_clones_over_n(seed, n, t, clones):
    # e^{-L'} = Σ e^{-L_i}/(N+c) over originals and clones ≥ (N/(N+c)) · e^{-L}: so L' ≤ L + ln((N+c)/N), and
    # this is the exact supremum (reached as the worst one's evidence vanishes). Three clones cost ≤ ln 2 when
    # N ≥ 3.
    a_NT = realistic(seed, (n, t, 6), torch.float64)[:, :, 0]
    worst = int(a_NT.sum(1).argmin())
    more_NT = torch.cat([a_NT, a_NT[worst].expand(clones, -1)])
    before = -mixture(a_NT, Bayes(n).run(a_NT)).sum()
    after = -mixture(more_NT, Bayes(n + clones).run(more_NT)).sum()
    assert after <= before + math.log((n + clones) / n) + 1e-9


@steady
@example(seed=0, size=(2, 1, 2), r=5e-324)
@given(seeds, sizes, st.floats(0, 1))
def test_power_means_between_zero_and_one_never_fall_below_the_average_specialist(seed, size, r):
    logp_NTV = realistic(seed, size, torch.float64)
    logp_NTV = logp_NTV - logp_NTV.logsumexp(-1, keepdim=True)
    logp_TV = power_mean(logp_NTV, r)
    assert (logp_TV >= logp_NTV.mean(0) - 1e-9).all()
    assert logp_TV.logsumexp(-1).abs().max() <= 1e-9


@steady
@given(seeds, sizes)
def test_power_means_run_from_the_geometric_mean_to_the_mixture(seed, size):
    logp_NTV = realistic(seed, size, torch.float64)
    logp_NTV = logp_NTV - logp_NTV.logsumexp(-1, keepdim=True)
    uniform = Uniform(size[0]).logw_N
    torch.testing.assert_close(power_mean(logp_NTV, 1.0), mixture(logp_NTV, uniform), atol=1e-10, rtol=0)
    torch.testing.assert_close(power_mean(logp_NTV, 1e-9), geometric_mean(logp_NTV), atol=1e-5, rtol=0)
