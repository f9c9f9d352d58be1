"""Hidden states disturbed on their way from layer to layer, and what text then costs (b063)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sharedllm.model import Transformer

__all__ = ["Disturb", "disturbed_nats", "noisy"]

Disturb = Callable[[Tensor], Tensor]
"""``h_BTD → h_BTD``, applied to every layer's output."""


def noisy(sigma: float, seed: int) -> Disturb:
    """Add Gaussian noise with a deviation of ``sigma`` times each position's root mean square."""
    draw = torch.Generator().manual_seed(seed)

    def disturb(h_BTD: Tensor) -> Tensor:
        rms_BT1 = h_BTD.square().mean(-1, keepdim=True).sqrt()
        return h_BTD + sigma * rms_BT1 * torch.randn(h_BTD.shape, generator=draw)

    return disturb


@torch.no_grad()
def disturbed_nats(model: Transformer, tokens: Sequence[int], disturb: Disturb) -> list[float]:
    """Score a text's tokens after the first with every layer's output disturbed: nats of each token."""
    tokens_T = torch.tensor(tokens)
    h_BTD = model.embed(tokens_T[None, :-1])
    for layer in range(model.config.layers):
        h_BTD = disturb(model.span(layer, layer + 1)(h_BTD))
    nats: list[float] = cross_entropy(model.logits(h_BTD)[0].float(), tokens_T[1:], reduction="none").tolist()
    return nats
