"""A field of joint training: a small model, its tokenizer, every worker's text, and the text it is judged by.

The model is dense and has some 170,000 weights, so that hundreds of runs fit into minutes; its text is the
toy base's four domains. Workers hold disjoint documents: ``alike``, each some of every domain, or ``apart``,
each of one domain only.

*Covered*: text to train on, to choose by and to judge by come from different books. *Not covered*: models
whose loss is near that of a trained base; text beyond the four domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from sharedllm import corpus
from sharedllm.errors import BadRecipe
from sharedllm.model import Config, Tokenizer, Transformer, token_nats, train_tokenizer
from sharedllm.store import cached
from sharedllm.training import Recipe, Streams, encode

__all__ = ["SMALL", "STEP", "Field", "Shards"]

Shards = Literal["alike", "apart"]

SMALL = Config(
    vocab_size=512, width=64, layers=2, heads=2, kv_heads=2, head_width=32, hidden=176, context=128
)

STEP = Recipe(
    name="rounds",
    optimizer="adamw",
    lr=3e-3,
    adamw_lr=3e-3,
    weight_decay=0.0,
    warmup=0.05,
    decay=0.5,
    clip=1.0,
    balance=0.0,
    batch=2,
    window=64,
    tokens=2 * 64 * 1000,
    checkpoint_steps=1000,
)
"""One worker's inner training; learning rate, optimiser and tokens are what bets vary."""

_TEXT_BYTES = 1_500_000  # of each domain's training text
_JUDGED_WINDOW = 128
_VALIDATION_TOKENS, _TEST_TOKENS = 1_024, 4_096  # of each domain
_ROWS = 32


@dataclass(frozen=True)
class Field:
    """Who trains on what: ``workers`` shards of the kind ``shards``, and the model that all start from.

    Raises ``BadRecipe`` where ``apart`` has fewer workers than domains; what fetching text raises.
    """

    workers: int
    shards: Shards = "alike"
    config: Config = SMALL

    def __post_init__(self) -> None:
        if self.shards == "apart" and self.workers < len(corpus.BASE_DOMAINS):
            raise BadRecipe(
                f"{self.workers} workers can't hold {len(corpus.BASE_DOMAINS)} domains apart; have more."
            )

    @cached_property
    def key(self) -> dict[str, Any]:
        """Everything that decides what this field gives: names what is kept by content."""
        return {
            "workers": self.workers,
            "shards": self.shards,
            "config": self.config.to_dict(),
            "text": {name: corpus.domain(name).sha256 for name in corpus.BASE_DOMAINS},
            "text_bytes": _TEXT_BYTES,
            "judged": [_JUDGED_WINDOW, _VALIDATION_TOKENS, _TEST_TOKENS],
        }

    def model(self, seed: int) -> Transformer:
        """Draw the weights that all workers start from."""
        torch.manual_seed(seed)
        return Transformer(self.config)

    @cached_property
    def streams(self) -> tuple[Streams, ...]:
        """Give each worker's training text."""
        tensors = safetensors.torch.load_file(self._encoded / "streams.safetensors")
        return tuple(
            Streams(
                {
                    name.removeprefix(f"{w}."): tokens.long()
                    for name, tokens in tensors.items()
                    if name.startswith(f"{w}.")
                }
            )
            for w in range(self.workers)
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_bytes((self._encoded / "tokenizer.json").read_bytes())

    def validation_nats(self, model: Transformer) -> float:
        """Give the loss on validation text, nats per token, each domain alike."""
        return float(np.mean(_nats(model, self._validation[1])))

    def test_nats(self, model: Transformer) -> dict[str, float]:
        """Give the loss on every test document, nats per token."""
        documents, rows = self._test
        nats: dict[str, list[float]] = {}
        for document, loss in zip(documents, _nats(model, rows), strict=True):
            nats.setdefault(document, []).append(loss)
        return {document: float(np.mean(losses)) for document, losses in nats.items()}

    @cached_property
    def test_bytes_per_token(self) -> float:
        """Say how many bytes of test text a token is worth, to turn nats per token into bits per byte."""
        rows = self._test[1]
        return (
            sum(len(self.tokenizer.decode(row[1:].tolist()).encode()) for row in rows) / rows[:, 1:].numel()
        )

    @cached_property
    def _validation(self) -> tuple[list[str], Tensor]:
        return self._judged("validation", _VALIDATION_TOKENS)

    @cached_property
    def _test(self) -> tuple[list[str], Tensor]:
        return self._judged("test", _TEST_TOKENS)

    def _judged(self, split: corpus.Split, tokens: int) -> tuple[list[str], Tensor]:
        """Cut whole windows: the document of each, and ``tokens_MT``."""
        cuts = [
            (f"{name}/{cut.document}", cut.tokens)
            for name in corpus.BASE_DOMAINS
            for cut in corpus.excerpts(
                self.tokenizer.encode, getattr(corpus.domain(name), split), tokens, _JUDGED_WINDOW
            )
            if len(cut.tokens) == _JUDGED_WINDOW + 1
        ]
        return [document for document, _ in cuts], torch.tensor([tokens for _, tokens in cuts])

    @cached_property
    def _encoded(self) -> Path:
        return cached("rounds-text", self.key, self._encode)

    def _encode(self, folder: Path) -> None:
        sampled = {name: _spread(corpus.domain(name).train) for name in corpus.BASE_DOMAINS}
        texts = (document.text for documents in sampled.values() for document in documents)
        tokenizer = train_tokenizer(texts, self.config.vocab_size)
        shards = {
            f"{worker}.{name}": encode(tokenizer, documents).to(torch.int32)
            for worker in range(self.workers)
            for name, documents in self._share(sampled, worker).items()
        }
        (folder / "tokenizer.json").write_bytes(tokenizer.to_bytes())
        safetensors.torch.save_file(shards, folder / "streams.safetensors")

    def _share(
        self, sampled: Mapping[str, Sequence[corpus.Document]], worker: int
    ) -> dict[str, Sequence[corpus.Document]]:
        if self.shards == "alike":
            return {name: documents[worker :: self.workers] for name, documents in sampled.items()}
        names = list(sampled)
        name = names[worker % len(names)]
        owners = range(worker % len(names), self.workers, len(names))
        return {name: sampled[name][owners.index(worker) :: len(owners)]}


def _spread(documents: Sequence[corpus.Document]) -> Sequence[corpus.Document]:
    """Take every k-th document, so that about ``_TEXT_BYTES`` come from all over."""
    return documents[:: max(1, round(sum(d.n_bytes for d in documents) / _TEXT_BYTES))]


@torch.no_grad()
def _nats(model: Transformer, rows_MT: Tensor) -> list[float]:
    """Score each row: its mean loss in nats per token."""
    return [loss for rows in torch.split(rows_MT, _ROWS) for loss in token_nats(model, rows).mean(1).tolist()]
