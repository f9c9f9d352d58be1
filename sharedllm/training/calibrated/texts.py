"""The text that calibrates: a sample of the base domains' training splits, and of their validation splits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sharedllm import corpus
from sharedllm.errors import BadRecipe
from sharedllm.model import Tokenizer
from sharedllm.store import sha256_of
from sharedllm.training.data import Streams, opening

__all__ = ["Texts", "base_texts", "random_texts", "shuffled_texts"]

_BYTES_PER_TOKEN = 4  # at most, roughly, with any vocabulary here


@dataclass(frozen=True)
class Texts:
    """What a model is calibrated on, and what decides when to stop; neither is ever a test split."""

    train: Streams
    validation: Streams

    @property
    def sha256(self) -> str:
        return sha256_of([self.train.sha256, self.validation.sha256])

    def windows(self, split: str, draw: int, seed: int, rows: int, window: int) -> Tensor:
        """Draw windows of one more token than ``window``; ``draw`` numbers the batch: ``tokens_NT1``."""
        streams: Streams = getattr(self, split)
        if min(len(stream) for stream in streams.tokens.values()) <= window:
            raise BadRecipe(
                f"The {split} text of {', '.join(streams.tokens)} is not longer than a window of {window} "
                "tokens everywhere; give more text or smaller windows."
            )
        return streams.batch(draw, seed, rows, window)


def base_texts(tokenizer: Tokenizer, tokens_per_domain: int) -> Texts:
    """Sample the always-available domains, about so many tokens of each. Raises ``DownloadFailed``."""
    domains = [corpus.domain(name) for name in corpus.BASE_DOMAINS]

    def sample(split: str) -> Streams:
        return Streams({d.name: _sampled(tokenizer, getattr(d, split), tokens_per_domain) for d in domains})

    return Texts(sample("train"), sample("validation"))


def shuffled_texts(texts: Texts, seed: int) -> Texts:
    """The same training tokens in random order: their counts are right, and nothing else."""
    chance = torch.Generator().manual_seed(seed)
    streams = {
        name: tokens[torch.randperm(len(tokens), generator=chance)]
        for name, tokens in texts.train.tokens.items()
    }
    return Texts(Streams(streams), texts.validation)


def random_texts(texts: Texts, vocab_size: int, seed: int) -> Texts:
    """As many training tokens, each drawn evenly from the vocabulary."""
    chance = torch.Generator().manual_seed(seed)
    streams = {
        name: torch.randint(vocab_size, (len(tokens),), generator=chance)
        for name, tokens in texts.train.tokens.items()
    }
    return Texts(Streams(streams), texts.validation)


def _sampled(tokenizer: Tokenizer, documents: tuple[corpus.Document, ...], tokens: int) -> Tensor:
    """Documents from all over a split, until they hold so many tokens."""
    step = max(1, sum(document.n_bytes for document in documents) // (_BYTES_PER_TOKEN * tokens))
    ids: list[int] = []
    for document in documents[::step]:
        ids += [*opening(tokenizer), *tokenizer.encode(document.text)]
    return torch.tensor(ids, dtype=torch.int64)
