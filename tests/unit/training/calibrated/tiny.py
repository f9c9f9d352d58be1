"""Tiny models, dense and mixed, that learnt a made-up language for a moment, and text of it."""

from __future__ import annotations

import dataclasses

import torch

from sharedllm.model import Config, Transformer
from sharedllm.store import Manifest, sha256_of
from sharedllm.store.conversion import Loaded
from sharedllm.training import Streams, train
from sharedllm.training.calibrated import Budget, Effort, Texts
from tests.unit.training.conftest import TINY

MIXED = Config(
    vocab_size=64, width=32, layers=2, heads=2, kv_heads=1, head_width=16, hidden=48, experts=3, context=64
)
DENSE = dataclasses.replace(MIXED, experts=0)
QUICK = Effort(
    windows=16,
    window=32,
    group=64,
    gains=Budget(4096, (0.003, 0.01), batch=4, window=32, validation=256, evaluations=2),
    trits=Budget(8192, (0.01,), batch=4, window=32, validation=256, evaluations=2),
)
_RECIPE = dataclasses.replace(TINY, tokens=8 * 32 * 60, checkpoint_steps=100)


def _text(length: int, stride: int) -> torch.Tensor:
    chance = torch.Generator().manual_seed(stride)
    tokens = (torch.arange(length) * stride) % 64
    noisy = torch.rand(length, generator=chance) < 0.1
    tokens[noisy] = torch.randint(64, (int(noisy.sum()),), generator=chance)
    return tokens


def made_up() -> Texts:
    """Counting up, by ones and by threes, with a tenth of noise."""
    return Texts(
        Streams({"up": _text(3_000, 1), "threes": _text(3_000, 3)}),
        Streams({"up": _text(600, 1), "threes": _text(600, 3)}),
    )


def trained(config: Config, texts: Texts) -> Loaded:
    """Train a base for a few seconds."""
    torch.manual_seed(0)
    model = Transformer(config)
    train(model, texts.train, _RECIPE, seed=0)
    manifest = Manifest(
        "tiny", config, "0" * 64, sha256_of(config.to_dict()), {}, "float32", "Apache-2.0", {}
    )
    return Loaded(model.eval().requires_grad_(False), None, manifest)  # type: ignore[arg-type]
