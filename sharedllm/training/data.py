"""Token streams of domains, and batches that are a pure function of the step: resuming needs no position but
that.

Each document is one stretch of a stream, after the tokenizer's beginning-of-text token; windows start
anywhere, so they cross documents as a reader of a shelf would. Domains are drawn in proportion to the square
root of their size, between "each domain alike" (repeats the smallest too often) and "each token alike"
(drowns it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedllm.corpus import Document
from sharedllm.errors import BadRecipe
from sharedllm.model import Tokenizer
from sharedllm.store import sha256_of

__all__ = ["Streams", "encode", "opening"]


def opening(tokenizer: Tokenizer) -> list[int]:
    """Return the token that a document begins with, or nothing for a tokenizer that has none."""
    return [] if tokenizer.bos is None else [tokenizer.bos]


def encode(tokenizer: Tokenizer, documents: Iterable[Document]) -> Tensor:
    """Return one stream of token ids (int64): beginning-of-text, document, beginning-of-text, document …"""
    ids: list[int] = []
    for document in documents:
        ids.extend(opening(tokenizer))
        ids.extend(tokenizer.encode(document.text))
    return torch.tensor(ids, dtype=torch.int64)


@dataclass(frozen=True)
class Streams:
    """Named token streams to draw windows from; a single one serves for one domain.

    Raises ``BadRecipe`` when there is none, or one is empty.
    """

    tokens: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        short = [name for name, stream in self.tokens.items() if len(stream) < 2]
        if short or not self.tokens:
            raise BadRecipe(
                f"There is nothing to train on: {', '.join(short) or 'no stream'} holds no two tokens."
            )

    @property
    def sha256(self) -> str:
        """Hash names and contents, so that a checkpoint is never resumed on other text."""
        return sha256_of({name: sha256_of(stream.numpy().tobytes()) for name, stream in self.tokens.items()})

    def shares(self) -> dict[str, float]:
        """Return the share of windows drawn from each stream; they sum to 1."""
        roots = {name: len(stream) ** 0.5 for name, stream in self.tokens.items()}
        return {name: root / sum(roots.values()) for name, root in roots.items()}

    def batch(self, step: int, seed: int, rows: int, window: int) -> Tensor:
        """Return ``tokens_BT1`` (``rows`` × (``window`` + 1), int64) of one step: inputs and, shifted by one,
        targets.

        Depends on nothing but the arguments and the streams. A stream shorter than a window is repeated.
        """
        chance = torch.Generator().manual_seed(int(sha256_of([seed, step])[:15], 16))
        names = list(self.tokens)
        weights = torch.tensor(list(self.shares().values()), dtype=torch.float64)
        picked = torch.multinomial(weights, rows, replacement=True, generator=chance).tolist()
        drawn = torch.rand(rows, dtype=torch.float64, generator=chance).tolist()
        out = []
        for index, share in zip(picked, drawn, strict=True):
            stream = self.tokens[names[index]]
            start = int(share * max(1, len(stream) - window))
            positions = torch.arange(start, start + window + 1) % len(stream)
            out.append(stream[positions])
        return torch.stack(out)
