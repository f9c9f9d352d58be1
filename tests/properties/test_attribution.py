"""Ledgers reconcile on real-looking and hostile log-probabilities, and no change to an entry goes unseen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharedllm.attribution import Entry, entries, evidence, log_shares, reconcile, responsibilities, verify
from sharedllm.combiner import Bayes, FixedShare, mixture
from sharedllm.errors import BadLedger

torch.set_num_threads(1)
steady = settings(deadline=None)  # no timing decides a test
seeds = st.integers(0, 2**31)


def text(seed: int, n: int, t: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make ``a_NT``, fixed-share weights and the joint from fp32 logits, as real specialists would."""
    generator = torch.Generator().manual_seed(seed)
    logits_NTV = 4 * torch.randn(n, t, 64, generator=generator)
    a_NT = evidence(logits_NTV, torch.randint(64, (t,), generator=generator))
    logw_NT = FixedShare(n, 0.01 * (n > 1)).run(a_NT)
    return a_NT, logw_NT, mixture(a_NT, logw_NT)


def hostile(seed: int, n: int, t: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make log-probabilities down to −1e4, zeros and duplicates, with Bayes weights that vanish."""
    generator = torch.Generator().manual_seed(seed)
    scale = 10.0 ** torch.randint(-8, 5, (n, t), generator=generator)
    a_NT = -torch.rand(n, t, generator=generator, dtype=torch.float64) * scale
    a_NT[torch.rand(n, t, generator=generator) < 0.2] = -math.inf
    a_NT[-1] = a_NT[0]
    logw_NT = Bayes(n).run(a_NT)
    return a_NT, logw_NT, mixture(a_NT, logw_NT)


def written(a_NT: Tensor, logw_NT: Tensor, joint_T: Tensor) -> list[Entry]:
    names = tuple(f"specialist-{i}" for i in range(a_NT.shape[0]))
    return entries(a_NT, logw_NT, joint_T, torch.arange(a_NT.shape[1]), names)


@steady
@given(seeds, st.integers(1, 8), st.integers(1, 40))
def test_the_fp64_ledger_is_within_1e_12_of_the_joint_on_every_token(seed, n, t):
    assert float(reconcile(*text(seed, n, t)).residuals().max()) <= 1e-12


@steady
@given(seeds, st.integers(1, 8), st.integers(1, 40))
def test_the_fixed_point_ledger_adds_up_to_the_joint_exactly(seed, n, t):
    for entry in written(*text(seed, n, t)):
        assert sum(entry.evidence) + sum(entry.prior) + entry.diversity + entry.remainder == entry.joint


@steady
@given(seeds, st.integers(1, 6), st.integers(1, 20))
def test_the_fixed_point_ledger_adds_up_exactly_on_hostile_values(seed, n, t):
    a_NT, logw_NT, joint_T = hostile(seed, n, t)
    assume(bool(joint_T.isfinite().all()))
    for entry in written(a_NT, logw_NT, joint_T):
        verify(entry)
        assert sum(entry.evidence) + sum(entry.prior) + entry.diversity + entry.remainder == entry.joint


@steady
@given(seeds, st.integers(1, 6), st.integers(1, 20))
def test_shares_of_a_token_sum_to_one_and_equal_the_bayes_update(seed, n, t):
    a_NT, _, _ = text(seed, n, t)
    logw_NT = Bayes(n).run(a_NT)
    r_NT = responsibilities(a_NT, logw_NT)
    torch.testing.assert_close(r_NT.sum(0), torch.ones(t, dtype=torch.float64), atol=1e-14, rtol=0)
    torch.testing.assert_close(r_NT[:, :-1], logw_NT[:, 1:].exp(), atol=1e-12, rtol=0)


@steady
@given(seeds, st.integers(1, 6), st.integers(1, 20))
def test_diversity_lies_between_zero_and_ln_n(seed, n, t):
    diversity_T = log_shares(*text(seed, n, t)[:2]).diversity_T
    assert (diversity_T >= -1e-15).all()
    assert (diversity_T <= math.log(n) + 1e-12).all()


@steady
@given(seeds, st.integers(2, 5), st.integers(-(2**50), 2**50).filter(bool), st.data())
def test_a_changed_amount_is_detected_wherever_it_is(seed, n, change, data):
    entry = written(*text(seed, n, 1))[0]
    name = data.draw(st.sampled_from(["evidence", "prior", "diversity", "remainder", "joint"]))
    before = getattr(entry, name)
    if isinstance(before, tuple):
        at = data.draw(st.integers(0, n - 1))
        after = (*before[:at], before[at] + change, *before[at + 1 :])
    else:
        after = before + change
    with pytest.raises(BadLedger, match="missing"):
        verify(replace(entry, **{name: after}))


@steady
@given(seeds, st.integers(2, 5), st.integers(2**14, 2**50), st.booleans())
def test_changes_that_cancel_are_detected_above_rounding(seed, n, change, into_remainder):
    entry = written(*text(seed, n, 1))[0]
    first, second, *rest = entry.evidence
    if into_remainder:
        forged = replace(entry, evidence=(first + change, second, *rest), remainder=entry.remainder - change)
    else:
        forged = replace(entry, evidence=(first + change, second - change, *rest))
    with pytest.raises(BadLedger, match="was changed"):
        verify(forged)


@steady
@given(seeds, st.integers(2, 5), st.data())
def test_a_specialist_left_out_is_detected_even_when_the_remainder_covers_its_lines(seed, n, data):
    entry = written(*text(seed, n, 1))[0]
    out = data.draw(st.integers(0, n - 1))
    keep = [i for i in range(n) if i != out]
    columns = ("specialists", "logw", "logp", "evidence", "prior")
    less = {name: tuple(getattr(entry, name)[i] for i in keep) for name in columns}
    hidden = entry.evidence[out] + entry.prior[out]
    for forged in (replace(entry, **less), replace(entry, **less, remainder=entry.remainder + hidden)):
        with pytest.raises(BadLedger):
            verify(forged)
