"""A bias on the user's most telling tokens: the rival that knows nothing but how often words come.

``bias_v = s · ln((c_v + ½) / (e_v + ½))``, with ``c_v`` how often token v came in the training text and
``e_v`` how often the base expected it there (its probabilities, summed); the k = 1,000 tokens with the
largest ``c_v · |ln ratio|`` keep theirs. The strength s is chosen on validation, 0 (the base) included. A
control of b037: an adapter that does not beat this has learnt word counts. On SmolLM2-135M and Austen it
bought 0.008 nats (ml.md §1).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sharedllm.adapters.head import head_weight, pieces
from sharedllm.errors import BadAdapter
from sharedllm.model.transformer import Transformer

__all__ = ["STRENGTHS", "TOKENS", "biased", "direction", "losses"]

TOKENS = 1_000
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_SMOOTHING = 0.5


@torch.no_grad()
def direction(model: Transformer, windows_BT: Tensor) -> dict[str, Tensor]:
    """Find the user's tokens and their bias at strength 1, from training windows of one token more."""
    weight_VD = head_weight(model)
    expected_V = weight_VD.new_zeros(len(weight_VD), dtype=torch.float64)
    for h, _ in _hidden(model, windows_BT):
        expected_V += (h @ weight_VD.T).softmax(1).sum(0, dtype=torch.float64)
    counts_V = torch.bincount(windows_BT[:, 1:].flatten(), minlength=len(expected_V)).double()
    ratio_V = ((counts_V + _SMOOTHING) / (expected_V + _SMOOTHING)).log()
    tokens = (counts_V * ratio_V.abs()).topk(min(TOKENS, len(ratio_V))).indices.sort().values
    return {"tokens": tokens.int(), "bias": ratio_V[tokens].float()}


@torch.no_grad()
def losses(model: Transformer, windows_BT: Tensor, tensors: dict[str, Tensor]) -> tuple[float, ...]:
    """Compute the mean loss (nats per token) of the windows at each of ``STRENGTHS``, in one pass."""
    weight_VD, tokens = head_weight(model), tensors["tokens"].long()
    total_nats = torch.zeros(len(STRENGTHS), dtype=torch.float64)
    for h, targets in _hidden(model, windows_BT):
        logits = h @ weight_VD.T
        previous = 0.0
        for i, strength in enumerate(STRENGTHS):
            logits[:, tokens] += (strength - previous) * tensors["bias"]
            total_nats[i] += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").double()
            previous = strength
    return tuple((total_nats / windows_BT[:, 1:].numel()).tolist())


def _hidden(model: Transformer, windows_BT: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for window_T in windows_BT:
        h_1TD = model.norm(model.hidden(window_T[None, :-1]))
        yield from pieces(h_1TD[0], window_T[1:])


@contextlib.contextmanager
def biased(model: Transformer, tensors: dict[str, Tensor]) -> Iterator[None]:
    """Add the bias to every logit that the model computes inside the body.

    Raises ``BadAdapter`` when a token is not in the model's vocabulary or the tensors are not a bias.
    """
    if set(tensors) != {"tokens", "bias"} or tensors["tokens"].shape != tensors["bias"].shape:
        raise BadAdapter(
            f"A unigram adapter holds tokens and their biases, not {sorted(tensors)}; fit it again."
        )
    tokens, bias = tensors["tokens"].long(), tensors["bias"]
    if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < model.config.vocab_size:
        raise BadAdapter(
            f"A unigram adapter names token {int(tokens.max())}, and this model knows "
            f"{model.config.vocab_size}. Load the base that it was fitted on."
        )
    plain, before = model.logits, vars(model).get("logits")
    bias_V = torch.zeros(model.config.vocab_size).index_add_(0, tokens, bias)

    def logits(h_BTD: Tensor, *given: Any) -> Tensor:
        logits_BTV = plain(h_BTD, *given)
        return logits_BTV + bias_V.to(logits_BTV)

    model.logits = logits  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        if before is None:
            del model.logits
        else:
            model.logits = before  # type: ignore[method-assign]
