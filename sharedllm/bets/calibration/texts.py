"""Calibration texts of a bet: real, shuffled or random; and the documents that they share with a test."""

from __future__ import annotations

from collections.abc import Sequence

from sharedllm import corpus
from sharedllm.store import Loaded
from sharedllm.training.calibrated import Texts, base_texts, random_texts, shuffled_texts

__all__ = ["calibration_texts", "shared_documents"]


def calibration_texts(base: Loaded, tokens_per_domain: int, seed: int) -> dict[str, Texts]:
    """Sample the base domains' training and validation splits: ``real``, ``shuffled``, and as many ``random``
    tokens.
    """
    real = base_texts(base.tokenizer, tokens_per_domain)
    noise = random_texts(real, base.tokenizer.vocab_size, seed)
    return {"real": real, "shuffled": shuffled_texts(real, seed), "random": noise}


def shared_documents(domains: Sequence[str]) -> int:
    """Count documents of these domains' test splits that calibration could have read, by content."""
    read = {
        document.sha256
        for name in corpus.BASE_DOMAINS
        for split in (corpus.domain(name).train, corpus.domain(name).validation)
        for document in split
    }
    return sum(document.sha256 in read for name in domains for document in corpus.domain(name).test)
