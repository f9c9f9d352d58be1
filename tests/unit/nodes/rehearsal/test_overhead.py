"""What auditing costs: the arithmetic of rounds, and a comparison of a tiny choir from end to end."""

from __future__ import annotations

import pytest
import torch

from sharedllm.model import Config, Transformer
from sharedllm.nodes.rehearsal import Block, Choir, Paired, compare, median_interval, round_ratio

TINY = Config(vocab_size=64, width=32, layers=2, heads=2, kv_heads=2, head_width=16, hidden=32, context=128)


def block(token_s: float, tokens: int, more_s: float = 0.0) -> Block:
    return Block((token_s + more_s, *[token_s] * (tokens - 1)), tuple(range(tokens)))


@pytest.fixture(scope="module")
def choir() -> Choir:
    torch.manual_seed(0)
    model = Transformer(TINY).eval().requires_grad_(False)
    return Choir(model, 3, 0.05, range(1, 9), 24)


def test_all_that_blocks_were_longer_falls_on_audited_tokens():
    pairs = [(block(0.01, 10), block(0.01, 10, more_s=0.004))] * 2
    assert round_ratio(pairs, tokens=8) == pytest.approx(1 + 0.004 / (8 * 0.01))


def test_a_machine_that_slows_down_steadily_costs_nothing():
    plain = [block(0.010, 5), block(0.013, 5)]
    audited = [block(0.011, 5), block(0.012, 5)]
    assert round_ratio(list(zip(plain, audited, strict=True)), tokens=5) == pytest.approx(1)


def test_plain_blocks_are_compared_with_each_other():
    slower = Paired(4, deferred=[((block(0.01, 4), block(0.01, 4)), (block(0.02, 4), block(0.02, 4)))])
    assert slower.null_ratios() == [pytest.approx(2)]


def test_an_interval_holds_its_median():
    median, low, high = median_interval([1.0, 1.1, 1.2, 1.3, 5.0])
    assert low <= median == 1.2 <= high


def test_an_interval_of_one_value_is_that_value():
    assert median_interval([1.5]) == (1.5, 1.5, 1.5)


def test_a_block_is_the_same_text_however_often_it_is_decoded(choir):
    assert choir.block(0, None, 8, 4).tokens == choir.block(1, None, 8, 4).tokens


def test_every_audited_token_is_proved(choir, tmp_path):
    paired = compare(choir, tmp_path, rounds=2, naive_every=2, tokens=8, rest=4, seed=0)
    assert (paired.proved, len(paired.deferred), len(paired.naive)) == (2 * 2 * 8, 2, 1)
    assert len(paired.token_ms(0)) == len(paired.token_ms(1)) == 32
    assert paired.audit_cpu_s > 0
