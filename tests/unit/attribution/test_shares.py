"""Shares on values that are known by hand, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch

from sharedllm.attribution import log_shares, reconcile, responsibilities
from sharedllm.errors import BadLedger

HALF = torch.tensor([[0.5], [0.5]], dtype=torch.float64).log()


def test_a_specialist_three_times_as_sure_has_three_quarters_of_the_token():
    a_NT = torch.tensor([[0.6], [0.2]], dtype=torch.float64).log()
    assert responsibilities(a_NT, HALF)[:, 0].tolist() == pytest.approx([0.75, 0.25], abs=1e-15)


def test_a_specialist_that_rules_the_token_out_has_no_line_and_no_nan():
    shares = log_shares(torch.tensor([[-1.0], [-math.inf]]), HALF)
    assert shares.evidence_NT[:, 0].tolist() == [-1.0, 0.0]
    assert float(shares.total()) == pytest.approx(-1.0 - math.log(2), abs=1e-15)


def test_a_specialist_of_weight_zero_has_no_line_and_no_nan():
    shares = log_shares(torch.tensor([[-1.0], [-2.0]]), torch.tensor([[0.0], [-math.inf]]))
    assert shares.prior_NT.tolist() == [[0.0], [0.0]]
    assert float(shares.total()) == -1.0


def test_specialists_that_agree_differ_by_their_weights_alone():
    r_NT = responsibilities(torch.full((2, 1), -3.0), torch.tensor([[0.9], [0.1]]).log())
    assert r_NT[:, 0].tolist() == pytest.approx([0.9, 0.1], abs=1e-7)


def test_one_specialist_alone_owns_the_token_without_diversity():
    shares = log_shares(torch.tensor([[-2.5]]), torch.zeros(1, 1))
    assert (float(shares.evidence_NT), float(shares.diversity_T)) == (-2.5, 0.0)


def test_a_token_all_call_impossible_is_refused_by_its_place():
    with pytest.raises(BadLedger, match="Token 1"):
        log_shares(torch.tensor([[-1.0, -math.inf], [-1.0, -math.inf]]), HALF.expand(2, 2))


def test_nan_is_refused():
    with pytest.raises(BadLedger, match="NaN"):
        responsibilities(torch.tensor([[math.nan], [-1.0]]), HALF)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(BadLedger, match="shape"):
        responsibilities(torch.zeros(2, 3), HALF)


def test_a_joint_of_another_length_is_refused():
    with pytest.raises(BadLedger, match="joint"):
        reconcile(torch.zeros(2, 1), HALF, torch.zeros(3))
