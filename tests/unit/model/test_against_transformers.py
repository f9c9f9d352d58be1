"""Logits and decoding agree with transformers' ``LlamaForCausalLM`` on the same weights."""

from __future__ import annotations

import pytest
import torch

from sharedllm.model import Sampling, Tokenizer, Transformer, generate
from tests.benchmarks.reference import as_transformers

AGREEMENT = 2e-4  # issue 2: maximum absolute difference of logits in fp32
PROSE = """It is a truth universally acknowledged, that a single man in possession of a good fortune, must be
in want of a wife. However little known the feelings or views of such a man may be on his first entering a
neighbourhood, this truth is so well fixed in the minds of the surrounding families, that he is considered as
the rightful property of some one or other of their daughters."""
CODE = """def fibonacci(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a

class Stack:
    def __init__(self) -> None:
        self.items = []
"""
TEXTS = {
    "prose": PROSE,
    "code": CODE,
    "malayalam": "എല്ലാ മനുഷ്യരും സ്വതന്ത്രരായും അന്തസ്സിലും അവകാശങ്ങളിലും തുല്യരായും ജനിക്കുന്നു.",
}


@pytest.mark.parametrize("seed", [0, 1])
def test_logits_of_small_random_models_agree(dense: Transformer, untied: Transformer, seed: int) -> None:
    tokens = torch.randint(320, (3, 60), generator=torch.Generator().manual_seed(seed))
    for model in (dense, untied):  # grouped heads and tied head; full heads, own head, other rotary base
        with torch.no_grad():
            theirs = as_transformers(model)(tokens).logits
            torch.testing.assert_close(model(tokens), theirs, atol=AGREEMENT, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("text", list(TEXTS))
def test_logits_of_the_real_model_agree_on_64_tokens(
    smollm2: tuple[Transformer, Tokenizer], text: str
) -> None:
    model, tokenizer = smollm2
    tokens = torch.tensor([tokenizer.encode(TEXTS[text])[:64]])
    assert tokens.shape == (1, 64)
    with torch.no_grad():
        difference = (model(tokens) - as_transformers(model)(tokens).logits).abs().max().item()
    assert difference <= AGREEMENT


@pytest.mark.slow
def test_greedy_text_of_the_real_model_is_the_references(smollm2: tuple[Transformer, Tokenizer]) -> None:
    model, tokenizer = smollm2
    tokens = tokenizer.encode(PROSE)[:32]
    ours = generate(model, tokenizer, [tokens], Sampling(max_tokens=24))[0].tokens
    theirs = as_transformers(model).generate(
        torch.tensor([tokens]),
        max_new_tokens=24,
        do_sample=False,
        attention_mask=torch.ones(1, 32),
        pad_token_id=0,
    )
    assert theirs[0, 32 : 32 + len(ours)].tolist() == ours


@pytest.mark.slow
@torch.no_grad()
def test_cached_decoding_of_the_real_model_equals_uncached(smollm2: tuple[Transformer, Tokenizer]) -> None:
    model, tokenizer = smollm2
    tokens = torch.tensor([tokenizer.encode(PROSE)[:64]])
    cache = model.cache(1)
    pieces = [model(piece, cache) for piece in tokens.split([32, *[1] * 32], dim=1)]
    whole = model(tokens)
    assert (torch.cat(pieces, 1) - whole).abs().max().item() <= 1e-4  # issue 2
    assert torch.equal(torch.cat(pieces, 1).argmax(-1), whole.argmax(-1))


@pytest.mark.slow
def test_the_real_model_writes_the_same_alone_and_in_a_padded_batch_of_eight(
    smollm2: tuple[Transformer, Tokenizer],
) -> None:
    model, tokenizer = smollm2
    tokens = tokenizer.encode(PROSE)
    prompts = [tokens[:n] for n in (3, 64, 17, 1, 30, 8, 45, 11)]
    together = generate(model, tokenizer, prompts, Sampling(max_tokens=12))
    assert together == [
        generate(model, tokenizer, [prompt], Sampling(max_tokens=12))[0] for prompt in prompts
    ]
