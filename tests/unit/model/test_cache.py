"""A cache saves work and changes nothing: not in what order, nor in what company, tokens were computed."""

from __future__ import annotations

import pytest
import torch

from sharedllm.errors import BadPrompt
from sharedllm.model import Cache, Transformer

CACHED = 1e-4  # issue 2: cached logits against uncached
TOKENS = torch.randint(320, (3, 20), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize("steps", [[1] * 20, [7] + [1] * 13, [5, 5, 10], [20]])
def test_cached_logits_equal_uncached(model: Transformer, steps: list[int]) -> None:
    cache = model.cache(3, capacity=4)
    pieces = [model(tokens, cache) for tokens in TOKENS.split(steps, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(TOKENS), atol=CACHED, rtol=0)


@torch.no_grad()
def test_rows_of_different_lengths_equal_each_row_alone(model: Transformer) -> None:
    lengths, steps = [9, 4, 1], 5
    cache = model.cache(3)
    model(TOKENS[:, :9], cache)
    cache.rollback([9 - length for length in lengths])
    together = [
        model(torch.stack([TOKENS[b, length + t] for b, length in enumerate(lengths)])[:, None], cache)
        for t in range(steps)
    ]
    for b, length in enumerate(lengths):
        alone = model(TOKENS[b : b + 1, : length + steps])[0, length:]
        torch.testing.assert_close(torch.cat(together, dim=1)[b], alone, atol=CACHED, rtol=0)


@torch.no_grad()
def test_several_tokens_at_once_behind_rows_of_different_lengths_equal_each_row_alone(
    model: Transformer,
) -> None:
    cache = model.cache(3)
    model(TOKENS[:, :9], cache)
    cache.rollback([0, 5, 8])
    more = TOKENS[:, 10:14]
    together = model(more, cache)
    for b, length in enumerate([9, 4, 1]):
        alone = model(torch.cat((TOKENS[b, :length], more[b]))[None])[0, length:]
        torch.testing.assert_close(together[b], alone, atol=CACHED, rtol=0)


@torch.no_grad()
def test_rolling_back_equals_never_having_decoded(model: Transformer) -> None:
    straight, wandering = model.cache(3), model.cache(3)
    model(TOKENS[:, :8], straight)
    model(TOKENS[:, :8], wandering)
    model(TOKENS[:, 12:15], wandering)
    model(TOKENS[:, 15:16], wandering)
    wandering.rollback(4)
    for t in range(8, 12):
        assert torch.equal(model(TOKENS[:, t : t + 1], straight), model(TOKENS[:, t : t + 1], wandering))


@torch.no_grad()
def test_selected_rows_go_on_as_if_they_had_been_alone(model: Transformer) -> None:
    cache = model.cache(3)
    model(TOKENS[:, :8], cache)
    cache.select([2, 0])
    logits = model(TOKENS[[2, 0], 8:9], cache)
    torch.testing.assert_close(logits, model(TOKENS[[2, 0], :9])[:, 8:], atol=CACHED, rtol=0)


@pytest.mark.parametrize("steps", [21, -1, [0, 0, 21]])
def test_a_cache_can_not_roll_back_before_its_beginning(dense: Transformer, steps: int | list[int]) -> None:
    cache = dense.cache(3)
    with torch.no_grad():
        dense(TOKENS, cache)
    with pytest.raises(ValueError, match="roll"):
        cache.rollback(steps)


def test_a_cache_refuses_to_outgrow_the_context_and_stays_as_it_was(dense: Transformer) -> None:
    cache = dense.cache(3)
    with torch.no_grad():
        dense(TOKENS, cache)
        with pytest.raises(BadPrompt, match=r"80 tokens.*context of 64"):
            dense(torch.zeros(3, 60, dtype=torch.long), cache)
    assert cache.lengths == [20, 20, 20]


def test_a_cache_says_how_many_bytes_it_holds(dense: Transformer) -> None:
    cache = Cache(dense.config, 1, 3, batch=5, capacity=10)
    assert (
        cache.size_bytes == 2 * 2 * 5 * 2 * 10 * 8 * 4
    )  # k and v · layers · rows · heads · room · width · fp32


def test_a_cache_made_during_inference_can_be_used_after_it(dense: Transformer) -> None:
    with torch.inference_mode():
        cache = dense.cache(3, capacity=4)
        dense(TOKENS, cache)
    with torch.no_grad():
        dense(TOKENS[:, :1], cache)
    assert cache.lengths == [21, 21, 21]
