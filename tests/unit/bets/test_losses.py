"""Losses stay paired by token and clustered by document."""

from __future__ import annotations

import numpy as np
import pytest

from sharedllm.bets.losses import Losses


def example() -> Losses:
    losses = Losses()
    losses.add("milton", ["a", "a"], {"base": [2.0, 4.0], "norm": [1.0, 3.0]})
    losses.add("milton", ["b"], {"base": [6.0], "norm": [6.0]})
    return losses


def test_a_difference_is_the_mean_over_documents_not_tokens() -> None:
    assert example().difference("milton", "base", "norm", resamples=10).estimate == pytest.approx(0.5)


def test_a_table_is_the_mean_over_tokens() -> None:
    assert example().table() == {"milton": {"base": 4.0, "norm": pytest.approx(10 / 3)}}


def test_documents_come_back_whole() -> None:
    parts = [(name, nats["base"].tolist()) for _, name, nats in example().documents()]
    assert parts == [("a", [2.0, 4.0]), ("b", [6.0])]


def test_document_differences_keep_their_order() -> None:
    np.testing.assert_allclose(example().by_document("milton", "base", "norm"), [1.0, 0.0])


@pytest.mark.parametrize("arms", [{"base": [1.0]}, {"base": [1.0], "norm": [1.0, 2.0]}])
def test_arms_that_do_not_pair_are_refused(arms: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match="one loss for each of 1 tokens"):
        example().add("milton", ["c"], arms)
