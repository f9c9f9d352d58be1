"""An ensemble is the combiner's mixture of losses, and forgets at the end of every document."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sharedllm.bets.personal import ensemble
from sharedllm.combiner import Bayes, FixedShare, Uniform

DOCUMENTS = ["a", "a", "b", "b"]
NATS_NT = np.array([[0.1, 0.2, 3.0, 3.0], [2.0, 2.0, 0.5, 0.4]])


def test_uniform_weights_lose_the_log_of_the_mean_probability() -> None:
    expected_T = -np.log(np.exp(-NATS_NT).mean(0))
    np.testing.assert_allclose(ensemble(NATS_NT, DOCUMENTS, Uniform(2)).nats_T, expected_T)


def test_twice_the_same_member_is_that_member() -> None:
    twins_NT = np.stack([NATS_NT[0], NATS_NT[0]])
    np.testing.assert_allclose(ensemble(twins_NT, DOCUMENTS, FixedShare(2, 0.1)).nats_T, NATS_NT[0])


def test_weights_start_anew_with_each_document() -> None:
    first = ensemble(NATS_NT[:, :2], DOCUMENTS[:2], Bayes(2)).nats_T
    second = ensemble(NATS_NT[:, 2:], DOCUMENTS[2:], Bayes(2)).nats_T
    both = ensemble(NATS_NT, DOCUMENTS, Bayes(2)).nats_T
    np.testing.assert_array_equal(both, np.concatenate([first, second]))


def test_losses_come_back_in_the_order_of_the_tokens() -> None:
    order = [0, 2, 1, 3]
    apart = ensemble(NATS_NT[:, order], [DOCUMENTS[i] for i in order], Bayes(2)).nats_T
    np.testing.assert_array_equal(apart, ensemble(NATS_NT, DOCUMENTS, Bayes(2)).nats_T[order])


def test_shares_are_mean_weights_before_each_token() -> None:
    (share, other) = ensemble(NATS_NT[:, :2], DOCUMENTS[:2], Bayes(2)).share_N
    posterior = 1 / (1 + math.exp(-1.9))
    assert (share, share + other) == (pytest.approx((0.5 + posterior) / 2), pytest.approx(1.0))


def test_losses_without_their_documents_are_refused() -> None:
    with pytest.raises(ValueError, match="need as many documents"):
        ensemble(NATS_NT, DOCUMENTS[:3], Uniform(2))
