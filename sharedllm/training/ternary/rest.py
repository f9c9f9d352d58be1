"""A trained base as its file holds it: trits from training, int8 embeddings, fp16 routers, fp32 gains.

*Covered*: ``as_stored`` reads the very file that is kept, so a loss measured on it is the loss of what people
load. *Not covered*: embeddings that were trained to be rounded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from sharedllm.model import Tokenizer, Transformer
from sharedllm.store.ternary import TernaryTensor, Weight, read, write
from sharedllm.training.ternary.ste import Per, Scale, ternary_weights

__all__ = ["as_stored", "at_rest"]


def at_rest(model: Transformer, scale: Scale, per: Per) -> dict[str, Weight]:
    """Give a model's weights by name, those of hidden matrices as trits and scales; for ``ternary.write``."""
    weights: dict[str, Weight] = {name: weight.detach() for name, weight in model.state_dict().items()}
    found = ternary_weights(model, scale, per)
    return weights | {name: TernaryTensor.of(pair) for name, pair in found.items()}


def as_stored(model: Transformer, tokenizer: Tokenizer, weights: Mapping[str, Weight]) -> Transformer:
    """Write a file of a model's ``weights`` and read it back: fp32, in evaluation mode, on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        with path.open("wb") as sink:
            write(sink, model.config, tokenizer, weights, licence="", provenance={})
        opened = read(path)
        restored = {name: opened.restored(name).clone() for name in opened}
    with torch.device("meta"):
        same = Transformer(model.config)
    same.load_state_dict(restored, assign=True)
    return same.eval()
