"""Our rules and attacks give the numbers of ``byzfl`` (EPFL), an implementation by other people."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sharedllm.robust import Clipping, aggregate, attack
from tests.benchmarks.robust import byzfl_apart

pytestmark = pytest.mark.skipif(
    not byzfl_apart.installed(), reason="byzfl is not here: pip install --no-deps byzfl==0.0.11"
)
SEEDS = range(3)
TOLERANCE = 1e-12
NO_CHANCE = torch.Generator()


def cloud(seed: int, workers: int = 15, size: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread_K1 = torch.rand(workers, 1, generator=generator, dtype=torch.float64) * 3
    return 1 + spread_K1 * torch.randn(workers, size, generator=generator, dtype=torch.float64)


def close(ours: Tensor, theirs: Any, tolerance: float = TOLERANCE) -> bool:
    theirs_P = torch.as_tensor(np.asarray(theirs))
    return bool((ours - theirs_P).abs().max() <= tolerance * (1 + theirs_P.abs().max()))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("f", [0, 1, 3, 6])
@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("mean", "Average"),
        ("median", "Median"),
        ("trimmed_mean", "TrMean"),
        ("krum", "Krum"),
        ("multi_krum", "MultiKrum"),
    ],
)
def test_a_rule_gives_its_number(rule: str, name: str, f: int, seed: int) -> None:
    kind = getattr(byzfl_apart.aggregators(), name)
    theirs = kind() if name in ("Average", "Median") else kind(f)
    assert close(aggregate(cloud(seed), rule, f), theirs(cloud(seed).numpy()))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("workers", [2, 7, 14])
def test_the_median_of_an_even_count_is_its_number(workers: int, seed: int) -> None:
    theirs = byzfl_apart.aggregators().Median()
    assert close(aggregate(cloud(seed, workers), "median", 0), theirs(cloud(seed, workers).numpy()))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("f", [0, 2, 5, 7])
def test_mixing_with_neighbours_gives_its_number(f: int, seed: int) -> None:
    library = byzfl_apart.aggregators()
    mixed = library.NNM(f)(cloud(seed).numpy())
    assert close(aggregate(cloud(seed), "nnm+trimmed_mean", f), library.TrMean(f)(mixed))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_geometric_median_is_where_its_iteration_goes_in_the_end(seed: int) -> None:
    theirs = byzfl_apart.aggregators().GeometricMedian(nu=1e-9, T=3000)
    assert close(aggregate(cloud(seed), "geometric_median", 3), theirs(cloud(seed).numpy()), 1e-7)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("radius", "iterations"), [(0.5, 1), (5.0, 1), (5.0, 4), (1e6, 2)])
def test_centered_clipping_gives_its_number(radius: float, iterations: int, seed: int) -> None:
    theirs = byzfl_apart.aggregators().CenteredClipping(L=iterations, tau=radius)
    how = Clipping(radius=radius, iterations=iterations)
    assert close(aggregate(cloud(seed), "centered_clipping", 3, clipping=how), theirs(cloud(seed).numpy()))


@pytest.mark.parametrize("seed", SEEDS)
def test_centered_clipping_goes_on_from_its_last_aggregate(seed: int) -> None:
    theirs = byzfl_apart.aggregators().CenteredClipping(L=2, tau=3.0)
    centre_P = None
    for step in range(3):
        vectors = cloud(10 * seed + step)
        how = Clipping(centre_P=centre_P, radius=3.0, iterations=2)
        centre_P = aggregate(vectors, "centered_clipping", 3, clipping=how)
        assert close(centre_P, theirs(vectors.numpy()))


def test_buckets_are_its_buckets_for_the_same_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    library, vectors = byzfl_apart.aggregators(), cloud(0)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(5)).numpy()
    monkeypatch.setattr(np.random, "permutation", lambda table: table[order])
    buckets = library.Bucketing(4)(vectors.numpy())
    drawn = torch.Generator().manual_seed(5)
    assert close(
        aggregate(vectors, "bucketing+median", 1, generator=drawn, bucket=4), library.Median()(buckets)
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("ours", "strength", "theirs", "settings"),
    [
        ("sign-flip", None, "SignFlipping", {}),
        ("ipm", 2.0, "InnerProductManipulation", {"tau": 2.0}),
        ("alie", 1.5, "ALittleIsEnough", {"tau": 1.5}),
    ],
)
def test_an_attack_sends_its_vector(
    ours: str, strength: float | None, theirs: str, settings: dict[str, float], seed: int
) -> None:
    lies_FP = attack(ours, cloud(seed), 2, generator=NO_CHANCE, strength=strength)
    assert close(lies_FP[1], getattr(byzfl_apart.attacks(), theirs)(**settings)(cloud(seed).numpy()))


def test_mimicking_sends_one_of_the_honest_vectors_as_its_does() -> None:
    lies_FP = attack("mimic", cloud(0), 2, generator=NO_CHANCE)
    kind = byzfl_apart.attacks().Mimic
    assert any(close(lies_FP[0], kind(epsilon=i)(cloud(0).numpy()), 0.0) for i in range(15))


@pytest.mark.parametrize("seed", [2, 7])
@pytest.mark.parametrize("rule", ["median", "nnm+median", "trimmed_mean"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("optimised-alie", "Optimal_ALittleIsEnough"), ("optimised-ipm", "Optimal_InnerProductManipulation")],
)
def test_our_optimised_attack_is_no_weaker_than_its(ours: str, theirs: str, rule: str, seed: int) -> None:
    library, f, honest_HP = byzfl_apart.aggregators(), 4, cloud(seed, 11)
    last = library.TrMean(f) if rule == "trimmed_mean" else library.Median()
    before = [library.NNM(f)] if rule.startswith("nnm") else []
    their_lie = getattr(byzfl_apart.attacks(), theirs)(agg=last, pre_agg_list=before, f=f)(honest_HP.numpy())

    def damage(lies_FP: Tensor) -> float:
        return float((aggregate(torch.cat([honest_HP, lies_FP]), rule, f) - honest_HP.mean(0)).norm())

    our_lies = attack(ours, honest_HP, f, generator=NO_CHANCE, rule=lambda x_KP: aggregate(x_KP, rule, f))
    assert damage(our_lies) >= 0.98 * damage(torch.as_tensor(their_lie).expand(f, -1))
