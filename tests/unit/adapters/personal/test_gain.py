"""The interval of a gain: by hand, and honest about few documents."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from sharedllm.adapters.personal.gain import gain_between, t_quantile
from sharedllm.corpus import Excerpt


def gain(by_document: dict[str, list[float]]):
    excerpts = [Excerpt(name, tuple(range(len(falls) + 1))) for name, falls in by_document.items()]
    before = [torch.full((len(falls),), 3.0) for falls in by_document.values()]
    after = [3.0 - torch.tensor(falls) for falls in by_document.values()]
    return gain_between(excerpts, before, after)


def test_equal_documents_give_the_t_interval_of_their_means():
    made = gain({"a": [0.1] * 4, "b": [0.2] * 4, "c": [0.3] * 4})
    half = 4.303 * statistics.stdev([0.1, 0.2, 0.3]) / math.sqrt(3)
    assert made.nats == pytest.approx(0.2, abs=1e-6)
    assert (made.low, made.high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-6)
    assert (made.tokens, made.documents, made.base_nats) == (12, 3, 3.0)


def test_tokens_weigh_the_same_whatever_document_they_are_in():
    assert gain({"a": [1.0] * 9, "b": [0.0], "c": [0.0]}).nats == pytest.approx(9 / 11)


def test_excerpts_of_one_document_count_as_one():
    excerpts = [Excerpt(name, (0, 1, 2)) for name in "aabbcc"]
    after = [torch.full((2,), 2.0 - i / 10) for i in range(6)]
    assert gain_between(excerpts, [torch.full((2,), 3.0)] * 6, after).documents == 3


def test_few_documents_that_disagree_show_nothing():
    assert not gain({"a": [0.5] * 100, "b": [0.1] * 100, "c": [-0.05] * 100}).helped


def test_documents_that_agree_show_help():
    assert gain({name: [0.10 + i / 100] * 50 for i, name in enumerate("abcdef")}).helped


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.706), (9, 2.262), (10, 2.228), (20, 2.086), (60, 2.000), (120, 1.980)]
)
def test_students_t_is_that_of_the_tables(freedom, t):
    assert t_quantile(freedom) == pytest.approx(t, abs=6e-4)
