"""Losses of held-out excerpts under an adapter, in fp32, kept in the store by content."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharedllm import adapters
from sharedllm.corpus import Excerpt
from sharedllm.model import Transformer, token_nats
from sharedllm.store import Loaded, atomic, cached, canonical_json, sha256_of

__all__ = ["SCORE_VERSION", "scored"]

SCORE_VERSION = 1  # raise it when the same inputs give other losses: kept ones are then made again
_ROWS = 4
_FILE = "nats.json"


def scored(
    base: Loaded,
    texts: Sequence[Excerpt],
    adapter: adapters.Adapter | None = None,
    prefix: Sequence[int] = (),
) -> NDArray[np.float64]:
    """Score every token of ``texts`` but each one's first: ``nats_T``, as the adapted base expects them.

    ``prefix`` are tokens that the model reads before each excerpt. Raises ``BadAdapter`` when the adapter
    does not fit the base, ``BadPrompt`` when prefix and excerpt outgrow its context.
    """
    key = {
        "base_sha256": base.manifest.weights_sha256,
        "adapter_sha256": None if adapter is None else _sha256(adapter),
        "texts_sha256": sha256_of([list(excerpt.tokens) for excerpt in texts]),
        "prefix_sha256": sha256_of(list(prefix)),
        "score_version": SCORE_VERSION,
    }

    def compute(folder: Path) -> None:
        if adapter is None:
            nats = _nats(base.model, texts, prefix)
        else:
            with adapters.applied(base.model, adapter):
                nats = _nats(base.model, texts, prefix)
        atomic.write_bytes(folder / _FILE, canonical_json(nats))

    return np.array(json.loads((cached("scores", key, compute) / _FILE).read_bytes()), dtype=np.float64)


def _sha256(adapter: adapters.Adapter) -> str:
    tensors = {name: tensor.contiguous() for name, tensor in adapter.tensors.items()}
    return sha256_of(safetensors.torch.save(tensors, {"method": adapter.method}))


@torch.no_grad()
def _nats(model: Transformer, texts: Sequence[Excerpt], prefix: Sequence[int]) -> list[float]:
    if prefix:
        return _after(model, texts, prefix)
    nats: list[float] = []
    for start in range(0, len(texts), _ROWS):
        rows = [torch.tensor(excerpt.tokens) for excerpt in texts[start : start + _ROWS]]
        lengths_B = torch.tensor([len(row) for row in rows])
        padded_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        nats_BT = token_nats(model, padded_BT, lengths_B)
        nats += [
            x for row, length in zip(nats_BT, lengths_B, strict=True) for x in row[: length - 1].tolist()
        ]
    return nats


def _after(model: Transformer, texts: Sequence[Excerpt], prefix: Sequence[int]) -> list[float]:
    """Read the prefix once, then each excerpt behind it."""
    cache = model.cache(1, len(prefix) + max(len(excerpt.tokens) for excerpt in texts))
    model.hidden(torch.tensor([list(prefix)]), cache)
    nats: list[float] = []
    for excerpt in texts:
        tokens_T: Tensor = torch.tensor(excerpt.tokens)
        logits_TV = model(tokens_T[None, :-1], cache)[0].float()
        nats += torch.nn.functional.cross_entropy(logits_TV, tokens_T[1:], reduction="none").tolist()
        cache.rollback(len(tokens_T) - 1)
    return nats
