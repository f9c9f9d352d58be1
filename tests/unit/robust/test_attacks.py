"""What liars send, and that each attack does to its victim what it is known for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sharedllm.errors import BadAggregate
from sharedllm.robust import ATTACKS, Clipping, aggregate, attack, z_max


def chance() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def honest(count: int = 12, size: int = 300) -> Tensor:
    return 1 + torch.randn(count, size, generator=chance(), dtype=torch.float64)


def off(rule: str, lies_FP: Tensor, f: int = 3) -> float:
    mean_P = honest().mean(0)
    return float((aggregate(torch.cat([honest(), lies_FP]), rule, f) - mean_P).norm() / mean_P.norm())


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_sends_one_vector_per_liar(name: str) -> None:
    lies_FP = attack(name, honest().float(), 3, generator=chance(), rule=lambda x_KP: x_KP.mean(0))
    assert lies_FP.shape == (3, 300)
    assert lies_FP.dtype == torch.float32


def test_scaling_destroys_the_mean() -> None:
    assert off("mean", attack("scale", honest(), 3, generator=chance())) > 100


def test_the_largest_z_that_hides_is_the_published_one() -> None:
    # 1902.06156, §4: n = 50 workers of whom 24 are corrupted give z = 1.43 (0.923 of the normal's mass)
    assert z_max(50, 24) == pytest.approx(1.426, abs=1e-3)


def test_there_is_no_hiding_for_one_liar_among_eight() -> None:
    assert z_max(8, 1) == 0.0


@pytest.mark.parametrize("rule", ["median", "nnm+median", "geometric_median", "multi_krum"])
@pytest.mark.parametrize(("plain", "optimised"), [("alie", "optimised-alie"), ("ipm", "optimised-ipm")])
def test_an_attack_that_knows_the_rule_harms_no_less(rule: str, plain: str, optimised: str) -> None:
    knowing = attack(optimised, honest(), 3, generator=chance(), rule=lambda x_KP: aggregate(x_KP, rule, 3))
    assert off(rule, knowing) >= 0.99 * off(rule, attack(plain, honest(), 3, generator=chance()))


def test_mimicking_repeats_the_vector_that_stands_out() -> None:
    vectors_HP = honest()
    vectors_HP[5] += 30
    assert torch.equal(attack("mimic", vectors_HP, 2, generator=chance())[1], vectors_HP[5])


def test_noise_comes_from_the_generator_alone() -> None:
    assert torch.equal(
        attack("gaussian", honest(), 2, generator=chance()),
        attack("gaussian", honest(), 2, generator=chance()),
    )


def test_one_honest_vector_has_no_spread_to_hide_in() -> None:
    alone_HP = honest(1)
    assert torch.equal(attack("alie", alone_HP, 1, generator=chance())[0], alone_HP[0])


def test_an_unknown_attack_is_refused() -> None:
    with pytest.raises(BadAggregate, match="no attack 'scail'; expected one of: scale"):
        attack("scail", honest(), 1, generator=chance())


def test_an_optimised_attack_without_a_rule_is_refused() -> None:
    with pytest.raises(BadAggregate, match="give the rule"):
        attack("optimised-ipm", honest(), 1, generator=chance())


@pytest.mark.parametrize(("f", "count"), [(0, 12), (1, 0)])
def test_an_attack_without_liars_or_victims_is_refused(f: int, count: int) -> None:
    with pytest.raises(BadAggregate, match="at least one of each"):
        attack("scale", honest()[:count], f, generator=chance())


def test_a_lie_against_long_vectors_is_found_on_a_sample_and_sent_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def against_median() -> float:
        lies_FP = attack(
            "optimised-alie",
            honest(),
            3,
            generator=chance(),
            rule=lambda x_KP: aggregate(x_KP, "nnm+median", 3),
        )
        return off("nnm+median", lies_FP)

    whole = against_median()
    monkeypatch.setattr("sharedllm.robust.optimised.SAMPLE", 200)
    assert against_median() >= 0.8 * whole


def test_a_rule_that_takes_whole_vectors_only_is_never_asked_with_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sharedllm.robust.optimised.SAMPLE", 20)
    around = Clipping(centre_P=torch.ones(300, dtype=torch.float64))
    lies_FP = attack(
        "optimised-ipm",
        honest(),
        3,
        generator=chance(),
        rule=lambda x_KP: aggregate(x_KP, "centered_clipping", 3, clipping=around),
    )
    assert lies_FP.shape == (3, 300)
