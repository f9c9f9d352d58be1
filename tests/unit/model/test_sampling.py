"""A seed decides the draw, and a value out of range is a sentence."""

from __future__ import annotations

import pytest
import torch

from sharedllm.errors import BadPrompt
from sharedllm.model import Sampling, choose, probabilities

LOGITS = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 3


def draws(sampling: Sampling, n: int) -> list[int]:
    generator = sampling.generator()
    return [choose(LOGITS, sampling, generator) for _ in range(n)]


def test_greedy_takes_the_likeliest_token() -> None:
    assert draws(Sampling(), 1) == [int(LOGITS.argmax())]


def test_the_same_seed_draws_the_same_tokens() -> None:
    sampling = Sampling(temperature=1.0, seed=7)
    assert draws(sampling, 20) == draws(sampling, 20)


def test_another_seed_draws_other_tokens() -> None:
    assert draws(Sampling(temperature=1.0, seed=7), 20) != draws(Sampling(temperature=1.0, seed=8), 20)


def test_draws_come_as_often_as_their_probability_says() -> None:
    logits, n = torch.tensor([0.5, 0.3, 0.2]).log(), 4_000
    sampling = Sampling(temperature=1.0)
    generator = sampling.generator()
    counts = torch.bincount(torch.tensor([choose(logits, sampling, generator) for _ in range(n)]))
    torch.testing.assert_close(counts / n, logits.exp(), atol=5 * (0.25 / n) ** 0.5, rtol=0)


def test_a_temperature_near_zero_is_greedy_without_overflow() -> None:
    assert probabilities(LOGITS, Sampling(temperature=1e-30)).argmax() == LOGITS.argmax()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("max_tokens", 0),
        ("stop", "end"),
        ("stop", ("",)),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(BadPrompt, match=f"{field} is .*; expected"):
        Sampling(**{field: value})  # type: ignore[arg-type]
