"""The mean of gains is taken element by element, and kinship is judged against every assignment of kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sharedllm.adapters import Adapter
from sharedllm.bets.personal import averaged, kinship_p
from sharedllm.errors import BadAdapter


def gains(value: float, method: str = "norm", base: str = "0" * 64) -> Adapter:
    return Adapter(method, base, {"norm.weight": torch.tensor([value, 1.0])})


def test_the_mean_is_taken_element_by_element() -> None:
    assert averaged([gains(1.0), gains(4.0)]).tensors["norm.weight"].tolist() == [2.5, 1.0]


def test_the_base_counts_as_a_member_without_a_change() -> None:
    assert averaged([gains(3.0), None]).tensors["norm.weight"].tolist() == [1.5, 0.5]


def test_the_mean_of_an_adapter_with_itself_is_the_adapter_bit_for_bit() -> None:
    own = gains(0.1)
    assert torch.equal(averaged([own, own]).tensors["norm.weight"], own.tensors["norm.weight"])


@pytest.mark.parametrize(
    "members",
    [[], [None], [gains(1.0), gains(1.0, base="1" * 64)], [gains(1.0, "unigram")]],
    ids=["nothing", "the base alone", "two bases", "another method"],
)
def test_what_has_no_mean_is_refused(members: list[Adapter | None]) -> None:
    with pytest.raises(BadAdapter, match="norm adapters of one base"):
        averaged(members)


def test_kin_that_gain_most_together_have_the_smallest_p_there_is() -> None:
    kinds = ["poet", "poet", "coder", "coder"]
    scores_UU = np.array([[kind == other for other in kinds] for kind in kinds], dtype=float)
    assert kinship_p(scores_UU, kinds) == pytest.approx(1 / 3)


def test_kin_that_gain_least_together_have_a_p_of_one() -> None:
    kinds = ["poet", "poet", "coder"]
    scores_UU = -np.array([[kind == other for other in kinds] for kind in kinds], dtype=float)
    assert kinship_p(scores_UU, kinds) == 1.0


def test_the_diagonal_says_nothing_of_kinship() -> None:
    kinds = ["poet", "poet", "coder"]
    scores_UU = np.arange(9.0).reshape(3, 3)
    assert kinship_p(scores_UU, kinds) == kinship_p(scores_UU - 100 * np.eye(3), kinds)


@pytest.mark.parametrize("kinds", [["poet", "poet"], ["poet", "coder"], ["poet", "coder", "poet"]])
def test_a_table_without_kin_or_strangers_is_refused(kinds: list[str]) -> None:
    with pytest.raises(ValueError, match="of whom some are alike"):
        kinship_p(np.zeros((2, 2)), kinds)
