"""The model: one decoder for dense Llama-style weights and for FractalMoE, and what one does with it.

Pure torch and ``tokenizers``: nothing here reads or writes a file, opens a socket or knows where weights come
from (``store`` does). Numbers go in and come out; whoever calls decides about devices, threads and gradients.
A model is nothing but spans in a row, so the network can run any of them elsewhere.

Bets that rest on it: all that run a model; first b004 (mixture), b018 (glass box) and b037 (norm-only), whose
``2L + 1`` gains are ``Transformer.gains``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sharedllm.model.cache import Cache
    from sharedllm.model.config import THIRTY_M_CONFIG, TOY_CONFIG, Config
    from sharedllm.model.generation import Continuation, Generation, generate
    from sharedllm.model.projection import PackedProjection, steady
    from sharedllm.model.sampling import Sampling, choose, probabilities
    from sharedllm.model.scoring import Window, log_probs, score, token_nats, windows
    from sharedllm.model.tokenizer import Tokenizer, train_tokenizer
    from sharedllm.model.transformer import Block, Span, Transformer, int8, join_weights, pack_weights

__all__ = [
    "THIRTY_M_CONFIG",
    "TOY_CONFIG",
    "Block",
    "Cache",
    "Config",
    "Continuation",
    "Generation",
    "PackedProjection",
    "Sampling",
    "Span",
    "Tokenizer",
    "Transformer",
    "Window",
    "choose",
    "generate",
    "int8",
    "join_weights",
    "log_probs",
    "pack_weights",
    "probabilities",
    "score",
    "steady",
    "token_nats",
    "train_tokenizer",
    "windows",
]

# torch takes a second to import, and whoever only reads a manifest's configuration needs none of it
_HOMES = {
    "Cache": "cache",
    "Config": "config",
    "THIRTY_M_CONFIG": "config",
    "TOY_CONFIG": "config",
    "Continuation": "generation",
    "Generation": "generation",
    "generate": "generation",
    "PackedProjection": "projection",
    "steady": "projection",
    "Sampling": "sampling",
    "choose": "sampling",
    "probabilities": "sampling",
    "Window": "scoring",
    "log_probs": "scoring",
    "score": "scoring",
    "token_nats": "scoring",
    "windows": "scoring",
    "Tokenizer": "tokenizer",
    "train_tokenizer": "tokenizer",
    "Block": "transformer",
    "Span": "transformer",
    "Transformer": "transformer",
    "int8": "transformer",
    "join_weights": "transformer",
    "pack_weights": "transformer",
}


def __getattr__(name: str) -> Any:
    """Import the module of a name when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
