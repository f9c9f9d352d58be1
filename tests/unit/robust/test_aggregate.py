"""What is aggregated, what is refused, and what one bad number can do."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sharedllm.errors import BadAggregate
from sharedllm.robust import PREAGGREGATIONS, RULES, Clipping, Files, aggregate, check_rule, finite

ROBUST = [rule for rule in RULES if rule != "mean"]
ALL = [*RULES, *(f"{step}+{rule}" for step in PREAGGREGATIONS for rule in ROBUST)]


def cloud(workers: int = 15, size: int = 200, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 + torch.randn(workers, size, generator=generator, dtype=torch.float64)).to(dtype)


def chance() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_each_rule_gives_the_number_known_for_it() -> None:
    vectors_KP = torch.tensor([[1.0], [2.0], [3.0], [4.0], [100.0]], dtype=torch.float64)
    known = {"mean": 22.0, "median": 3.0, "trimmed_mean": 3.0, "geometric_median": 3.0, "multi_krum": 2.5}
    found = {rule: float(aggregate(vectors_KP, rule, 1)) for rule in known}
    assert found == pytest.approx(known, abs=1e-5)


@pytest.mark.parametrize("rule", ALL)
def test_equal_vectors_are_their_own_aggregate(rule: str) -> None:
    vectors_KP = cloud(1, dtype=torch.float32).expand(9, -1)
    found_P = aggregate(vectors_KP, rule, 1, generator=chance())
    assert torch.allclose(found_P, vectors_KP[0], rtol=1e-5)


@pytest.mark.parametrize("rule", ALL)
def test_a_vector_of_nan_or_infinity_is_as_if_it_was_never_sent(rule: str) -> None:
    honest_KP = cloud(17)
    bad_KP = torch.stack([torch.full((200,), math.nan), torch.full((200,), -math.inf)]).double()
    sent_KP = torch.cat([honest_KP[:4], bad_KP, honest_KP[4:]])
    expected_P = aggregate(honest_KP, rule, 1, generator=chance())
    assert torch.allclose(aggregate(sent_KP, rule, 3, generator=chance()), expected_P, rtol=1e-12)


@pytest.mark.parametrize("rule", ["median", "nnm+median", "geometric_median", "multi_krum"])
def test_a_vector_as_long_as_floats_go_poisons_nothing(rule: str) -> None:
    honest_KP = cloud(9, dtype=torch.float32)
    sent_KP = torch.cat([honest_KP, torch.full((2, 200), 3e38)])
    off = (aggregate(sent_KP, rule, 2) - honest_KP.mean(0)).norm() / honest_KP.mean(0).norm()
    assert float(off) < 0.5


def test_one_nan_is_one_of_the_liars_and_no_more() -> None:
    sent_KP = cloud(9)
    sent_KP[3, 7] = math.nan
    assert finite(sent_KP) == [True] * 3 + [False] + [True] * 5
    expected_P = aggregate(sent_KP[[0, 1, 2, 4, 5, 6, 7, 8]], "trimmed_mean", 1)
    assert torch.equal(aggregate(sent_KP, "trimmed_mean", 2), expected_P)


def test_more_nan_than_liars_were_promised_is_refused() -> None:
    sent_KP = cloud(9)
    sent_KP[:3] = math.nan
    with pytest.raises(BadAggregate, match=r"3 of 9 workers sent NaN.*was to bear 2"):
        aggregate(sent_KP, "median", 2)


def test_the_mean_bears_nan_whatever_it_was_promised() -> None:
    sent_KP = cloud(4)
    sent_KP[1:] = math.nan
    assert torch.equal(aggregate(sent_KP, "mean", 0), sent_KP[0])


def test_nothing_finite_is_refused() -> None:
    with pytest.raises(BadAggregate, match="4 of 4 workers"):
        aggregate(torch.full((4, 3), math.nan), "mean", 0)


@pytest.mark.parametrize(
    ("rule", "workers", "f", "said"),
    [
        ("medain", 9, 1, "no rule 'medain'.*nnm\\+median"),
        ("median+nnm", 9, 1, "no rule 'median\\+nnm'"),
        ("median", 8, 4, "4 liars among 8 workers cannot be trusted: median needs at least 9"),
        ("krum", 8, 3, "krum needs at least 9"),
        ("multi_krum", 2, 0, "multi_krum needs at least 3"),
        ("nnm+median", 6, 3, "nnm needs at least 7"),
        ("bucketing+median", 8, 2, "bucketing leaves 4, cannot be trusted"),
        ("median", 8, -1, "-1 liars"),
        ("median", 0, 0, "among 0 workers"),
    ],
)
def test_what_cannot_be_trusted_is_refused_by_sentence(rule: str, workers: int, f: int, said: str) -> None:
    with pytest.raises(BadAggregate, match=said):
        check_rule(rule, workers, f)


def test_bucketing_needs_to_be_told_where_chance_comes_from() -> None:
    with pytest.raises(BadAggregate, match="give the generator"):
        aggregate(cloud(9), "bucketing+median", 1)


@pytest.mark.parametrize("vectors", [torch.zeros(3), torch.zeros(0, 4), torch.zeros(3, 4, dtype=torch.int64)])
def test_what_is_no_table_of_numbers_is_refused(vectors: Tensor) -> None:
    with pytest.raises(BadAggregate, match="no table"):
        aggregate(vectors, "mean", 0)


def test_a_centre_of_another_length_is_refused() -> None:
    with pytest.raises(BadAggregate, match="one vector of 200"):
        aggregate(cloud(9), "centered_clipping", 1, clipping=Clipping(centre_P=torch.zeros(3)))


@pytest.mark.parametrize("rule", ALL)
def test_reading_in_small_blocks_changes_nothing(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_P = aggregate(cloud(), rule, 2, generator=chance())
    monkeypatch.setattr("sharedllm.robust.vectors.BLOCK_BYTES", 15 * 8 * 7)
    assert torch.allclose(aggregate(cloud(), rule, 2, generator=chance()), whole_P, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_files_give_what_memory_gives(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sharedllm.robust.vectors.BLOCK_BYTES", 1000)
    vectors_KP = cloud(dtype=dtype)
    paths = [tmp_path / f"worker-{k}" for k in range(15)]
    for path, vector_P in zip(paths, vectors_KP, strict=True):
        path.write_bytes(vector_P.view(torch.uint8).numpy().tobytes())
    source = Files(paths, 200, dtype)
    assert torch.equal(aggregate(source, "nnm+median", 3), aggregate(vectors_KP, "nnm+median", 3))


def test_a_file_of_another_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"1234")
    with pytest.raises(BadAggregate, match=r"should hold 2 numbers.*but has 4"):
        Files([tmp_path / "short"], 2)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadAggregate, match="there is no such file"):
        Files([tmp_path / "nowhere"], 2)


def test_the_vectors_that_came_are_left_alone() -> None:
    sent_KP = cloud()
    sent_KP[0] = math.nan
    before = sent_KP.clone()
    aggregate(sent_KP, "nnm+trimmed_mean", 3)
    assert torch.equal(sent_KP.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize(
    ("given", "returned"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
)
def test_the_aggregate_is_as_fine_as_it_was_computed(given: torch.dtype, returned: torch.dtype) -> None:
    assert aggregate(cloud(dtype=given), "nnm+median", 3).dtype == returned


def test_a_few_liars_far_away_leave_no_trace_after_mixing() -> None:
    sent_KP = torch.cat([cloud(12), 1000 * cloud(3, seed=1)])
    assert torch.allclose(aggregate(sent_KP, "nnm+median", 3), cloud(12).mean(0), rtol=1e-12)


def test_the_geometric_median_stands_where_no_step_shortens_the_way() -> None:
    vectors_KP = cloud(9, 3)
    at_P = aggregate(vectors_KP, "geometric_median", 4)

    def way(point_P: Tensor) -> float:
        return float((vectors_KP - point_P).norm(dim=1).sum())

    generator = chance()
    around = [1e-3 * torch.randn(3, generator=generator, dtype=torch.float64) for _ in range(200)]
    assert all(way(at_P) <= way(at_P + step_P) for step_P in around)
