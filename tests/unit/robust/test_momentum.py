"""Worker momentum: whose running mean is whose, and what NaN does to it."""

from __future__ import annotations

import math

import pytest
import torch

from sharedllm.errors import BadAggregate
from sharedllm.robust import WorkerMomentum

ONES = torch.ones(2, 3)


def test_the_first_vector_is_its_own_momentum() -> None:
    assert torch.equal(WorkerMomentum(0.9).step(["a", "b"], ONES), ONES)


def test_later_ones_move_it_by_their_share() -> None:
    momentum = WorkerMomentum(0.75)
    momentum.step(["a", "b"], ONES)
    assert torch.equal(momentum.step(["a", "b"], 5 * ONES), 2 * ONES)


def test_a_worker_that_was_away_goes_on_where_it_was() -> None:
    momentum = WorkerMomentum(0.5)
    momentum.step(["a", "b"], ONES)
    momentum.step(["b"], 9 * ONES[:1])
    assert torch.equal(momentum.step(["a"], 3 * ONES[:1]), 2 * ONES[:1])


def test_nan_is_handed_on_and_forgotten() -> None:
    momentum = WorkerMomentum(0.5)
    momentum.step(["a"], ONES[:1])
    assert bool(momentum.step(["a"], math.nan * ONES[:1]).isnan().all())
    assert torch.equal(momentum.step(["a"], 3 * ONES[:1]), 2 * ONES[:1])


def test_two_vectors_of_one_worker_are_refused() -> None:
    with pytest.raises(BadAggregate, match="as many different workers"):
        WorkerMomentum().step(["a", "a"], ONES)


def test_a_momentum_that_never_forgets_is_refused() -> None:
    with pytest.raises(BadAggregate, match=r"\[0, 1\), not 1"):
        WorkerMomentum(1.0)
