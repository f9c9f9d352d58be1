"""Norm adapters become vectors and come back, and each rule is charged with what harms it most."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sharedllm.adapters import Adapter
from sharedllm.bets.liars import (
    Harm,
    as_adapter,
    as_vector,
    attacked,
    error_curve,
    harm,
    independent_p,
    losses_under_attack,
    ratio,
)
from sharedllm.errors import BadAdapter, BadAggregate

GAINS = {"blocks.0.attention_norm.weight": torch.ones(3), "norm.weight": torch.ones(2)}
BASE: Any = SimpleNamespace(
    model=SimpleNamespace(gains=lambda: GAINS),
    manifest=SimpleNamespace(name="small", weights_sha256="0" * 64),
)
ATTACKS = ["scale", "ipm", "optimised-ipm"]


def honest(seed: int = 0, workers: int = 7, size: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1 + 0.3 * torch.randn(workers, size, generator=generator, dtype=torch.float64)


class Readers:
    """Two users whose loss under an adapter is its distance from what they like."""

    base = BASE
    users = ("one", "two")

    @property
    def authors(self) -> dict[str, Any]:
        return {name: SimpleNamespace(documents=["a", "a", "b"]) for name in self.users}

    def nats(self, user: str, adapter: Adapter | None = None) -> np.ndarray:
        worn_P = torch.zeros(5) if adapter is None else as_vector(BASE, adapter)
        likes = {"one": 1.0, "two": 1.2}[user]
        return np.full(3, float((worn_P - likes).norm()))


def test_a_vector_and_its_adapter_are_the_same_numbers() -> None:
    delta_P = torch.arange(5, dtype=torch.float64) / 8
    assert torch.equal(as_vector(BASE, as_adapter(BASE, delta_P)), delta_P)


def test_gains_are_lined_up_in_the_order_of_the_base() -> None:
    tensors = {
        "norm.weight": torch.tensor([4.0, 5.0]),
        "blocks.0.attention_norm.weight": torch.tensor([1.0, 2, 3]),
    }
    assert as_vector(BASE, Adapter("norm", "0" * 64, tensors)).tolist() == [1, 2, 3, 4, 5]


def test_an_adapter_of_another_method_is_refused() -> None:
    with pytest.raises(BadAdapter, match="Only norm adapters of small"):
        as_vector(BASE, Adapter("lora", "0" * 64, dict(GAINS)))


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(BadAdapter, match="has 5 gains"):
        as_adapter(BASE, torch.zeros(4))


def test_a_rule_is_attacked_by_what_was_made_for_it() -> None:
    by_median = attacked(honest(), "median", 2, ["optimised-ipm"], 0)["optimised-ipm"]
    by_mean = attacked(honest(), "mean", 2, ["optimised-ipm"], 0)["optimised-ipm"]
    assert float(by_mean.norm()) > 10 * float(by_median.norm())


def test_the_worst_attack_is_chosen_in_each_seed_anew() -> None:
    assert Harm([0.0, 0.0], {"one": [1.0, 5.0], "two": [3.0, 2.0]}).worst == [3.0, 5.0]


def test_nobody_lies_in_the_clean_error() -> None:
    found = harm([honest()], "mean", 3, ATTACKS, [0])
    assert found.clean == pytest.approx([0.0], abs=1e-12)
    assert found.worst[0] > 100


def test_more_liars_than_the_rule_bears_are_refused() -> None:
    with pytest.raises(BadAggregate, match="median needs at least"):
        harm([honest()], "median", 7, ATTACKS, [0])


def test_a_ratio_is_the_geometric_mean_of_the_seeds_ratios() -> None:
    above, below = Harm([], {"one": [4.0, 1.0]}), Harm([], {"one": [1.0, 1.0]})
    found = ratio(above, below, 200)
    assert found.estimate == pytest.approx(2.0)
    assert (found.low, found.high) == (pytest.approx(1.0), pytest.approx(4.0))


def test_the_curve_is_over_the_fraction_of_liars() -> None:
    table = {"median": {f: harm([honest()], "median", f, ["ipm"], [0]) for f in (1, 3)}}
    assert error_curve("iid", 7, table, ["median"]).x == [1 / 8, 3 / 10]


def test_users_who_differ_are_told_from_users_who_do_not() -> None:
    own_HP = torch.randn(6, 20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    differ = [own_HP + 0.1 * honest(seed, 6, 20) for seed in (1, 2, 3)]
    alike = [honest(seed, 6, 20) for seed in (1, 2, 3)]
    assert independent_p(differ, 200) < 0.01
    assert independent_p(alike, 200) > 0.05


def test_one_seed_cannot_tell_whether_users_differ() -> None:
    with pytest.raises(ValueError, match="two or more"):
        independent_p([honest()], 10)


def test_each_arm_is_charged_with_its_costliest_attack() -> None:
    losses, by_seed = losses_under_attack(
        Readers(),
        [honest()],
        ["median", "mean"],
        2,
        ATTACKS,
        [0],  # type: ignore[arg-type]
    )
    assert by_seed["mean"][0] > 100 > by_seed["median"][0] > by_seed["honest mean"][0]
    assert losses.tokens == 6
