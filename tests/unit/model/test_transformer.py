"""A model is nothing but spans in a row."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch

from sharedllm.errors import BadPrompt
from sharedllm.model import Span, Transformer, join_weights

TOKENS = torch.randint(320, (2, 11), generator=torch.Generator().manual_seed(1))


def every_cut(layers: int) -> list[list[int]]:
    """All ways to cut ``layers`` into spans, as bounds."""
    inner = [[at for at in range(1, layers) if choice >> at & 1] for choice in range(0, 1 << layers, 2)]
    return [[0, *cuts, layers] for cuts in inner]


@torch.no_grad()
def test_any_cut_into_spans_gives_bit_identical_logits(model: Transformer) -> None:
    whole = model(TOKENS)
    for bounds in every_cut(model.config.layers):
        h = model.embed(TOKENS)
        for start, stop in pairwise(bounds):
            h = model.span(start, stop)(h)
        assert torch.equal(model.logits(h), whole), bounds


@torch.no_grad()
def test_spans_with_their_own_caches_decode_bit_identically(model: Transformer) -> None:
    whole = model.cache(2)
    spans = [model.span(0, 1), model.span(1, model.config.layers)]
    caches = [span.cache(2) for span in spans]
    for step in (TOKENS[:, :7], TOKENS[:, 7:8], TOKENS[:, 8:]):
        h = model.embed(step)
        for span, cache in zip(spans, caches, strict=True):
            h = span(h, cache)
        assert torch.equal(model.logits(h), model(step, whole))


@torch.no_grad()
def test_a_span_made_alone_runs_on_the_whole_models_tensors(model: Transformer) -> None:
    span = Span(model.config, 1, 2)
    span.load_state_dict({n: t for n, t in model.state_dict().items() if n.startswith("blocks.1.")})
    h = model.embed(TOKENS)
    assert torch.equal(span(h), model.span(1, 2)(h))


def test_a_span_shares_the_models_weights(dense: Transformer) -> None:
    assert dense.span(1, 3).blocks["2"].attention.q.weight is dense.blocks[2].attention.q.weight


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (-1, 2), (2, 9), (2, 1)])
def test_a_range_outside_of_the_model_is_no_span(dense: Transformer, start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="no span"):
        dense.span(start, stop)


def test_a_cache_of_other_layers_or_rows_is_refused(dense: Transformer) -> None:
    h = torch.zeros(2, 3, dense.config.width)
    for cache in (dense.span(1, 2).cache(2), dense.span(0, 1).cache(1)):
        with pytest.raises(ValueError, match="does not fit"):
            dense.span(0, 1)(h, cache)


def test_more_tokens_than_the_context_are_refused_with_both_numbers(dense: Transformer) -> None:
    with pytest.raises(BadPrompt, match=r"65 tokens.*context of 64"):
        dense(torch.zeros(1, 65, dtype=torch.long))


@torch.no_grad()
def test_the_last_logits_alone_are_the_last_of_all_logits(model: Transformer) -> None:
    torch.testing.assert_close(model(TOKENS, last_only=True), model(TOKENS)[:, -1:], atol=1e-5, rtol=0)


@torch.no_grad()
def test_no_token_depends_on_a_later_one(model: Transformer) -> None:
    changed = TOKENS.clone()
    changed[:, 6:] = 0
    torch.testing.assert_close(model(changed)[:, :6], model(TOKENS)[:, :6], atol=1e-5, rtol=0)


def test_logits_with_gradients_equal_those_without(model: Transformer) -> None:
    with torch.no_grad():
        fast = model(TOKENS)
    torch.testing.assert_close(model(TOKENS).detach(), fast, atol=2e-5, rtol=0)


def test_a_gradient_reaches_every_parameter(model: Transformer) -> None:
    tokens = torch.randint(320, (8, 32), generator=torch.Generator().manual_seed(2))
    model.train()(tokens).logsumexp(-1).sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def test_tables_first_made_during_inference_can_be_trained_through_later(dense: Transformer) -> None:
    from sharedllm.model.attention import _turns

    _turns.cache_clear()
    with torch.inference_mode():
        dense(TOKENS)
    dense(TOKENS).sum().backward()


def test_new_weights_follow_torchs_seed(dense: Transformer) -> None:
    def first() -> torch.Tensor:
        torch.manual_seed(5)
        return Transformer(dense.config).blocks[0].attention.q.weight

    assert torch.equal(first(), first())


@torch.no_grad()
def test_a_new_models_loss_is_that_of_a_uniform_guess(dense: Transformer) -> None:
    torch.manual_seed(0)
    nats = torch.nn.functional.cross_entropy(
        Transformer(dense.config)(TOKENS).flatten(0, 1), TOKENS.flatten()
    )
    assert abs(nats.item() - torch.tensor(320.0).log().item()) < 0.1


@torch.no_grad()
def test_joined_weights_give_the_same_logits_and_names(model: Transformer) -> None:
    before, names = model(TOKENS), list(model.state_dict())
    join_weights(model)
    torch.testing.assert_close(model(TOKENS), before, atol=1e-5, rtol=0)
    assert list(model.state_dict()) == names


def test_joining_weights_twice_moves_them_once(dense: Transformer) -> None:
    join_weights(dense)
    places = [p.data_ptr() for p in dense.parameters()]
    join_weights(dense)
    assert [p.data_ptr() for p in dense.parameters()] == places


@torch.no_grad()
def test_a_joined_weight_that_is_changed_or_replaced_counts_at_once(dense: Transformer) -> None:
    join_weights(dense)
    q = dense.blocks[0].attention.q
    for change in (lambda: q.weight.mul_(2), lambda: setattr(q.weight, "data", q.weight.data * 2)):
        change()
        plain = Transformer(dense.config)
        plain.load_state_dict(dense.state_dict())
        torch.testing.assert_close(dense(TOKENS), plain(TOKENS), atol=1e-5, rtol=0)


def test_a_joined_model_learns_as_an_unjoined_one_does(dense: Transformer) -> None:
    joined = copy.deepcopy(dense)
    join_weights(joined)
    for model in (dense, joined):
        model(TOKENS).logsumexp(-1).sum().backward()
    for (name, p), q in zip(dense.named_parameters(), joined.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_lora_takes_the_place_of_a_joined_projection(dense: Transformer) -> None:
    peft = pytest.importorskip("peft")
    plain = copy.deepcopy(dense)
    join_weights(dense)
    adapted = peft.get_peft_model(dense, peft.LoraConfig(target_modules=["q"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.normal_()
    assert not torch.allclose(adapted(TOKENS), plain(TOKENS), atol=1e-2)
