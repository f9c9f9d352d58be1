"""Held-out bits per byte by document, and by how much an arm's exceed the base's.

A document's loss is its summed nats over its summed bytes, so arms with one tokenizer pair exactly; domains
count alike, and documents alike within one. *Not covered*: arms with another tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sharedllm import corpus
from sharedllm.bets.evidence import Interval, bootstrap
from sharedllm.bets.personal import scored
from sharedllm.shapes import NATS_PER_BIT
from sharedllm.store import Loaded

__all__ = ["HeldOut", "Rise", "held_out_texts"]

_LEVEL = 0.95


@dataclass(frozen=True)
class Rise:
    """Bits per byte of an arm minus those of the base: by domain, and the mean over domains."""

    by_domain: Mapping[str, Interval]
    mean: Interval


@dataclass(frozen=True)
class _Text:
    excerpts: Sequence[corpus.Excerpt]
    document_E: NDArray[np.int64]  # the number of each excerpt's document
    bytes_G: NDArray[np.float64]  # that are scored, by document


class HeldOut:
    """Excerpts of each domain's test split, the same for every arm."""

    def __init__(self, texts: Mapping[str, _Text], resamples: int) -> None:
        self._texts, self._resamples = texts, resamples

    @property
    def documents(self) -> int:
        """How many documents are read."""
        return sum(len(text.bytes_G) for text in self._texts.values())

    def bits(self, model: Loaded) -> dict[str, float]:
        """Give the bits per byte of a model on each domain, the mean over documents."""
        return {name: float(self._by_document(model, text).mean()) for name, text in self._texts.items()}

    def rise(self, model: Loaded, base: Loaded) -> Rise:
        """Give by how many bits per byte a model's loss exceeds another's."""
        found = {
            name: self._by_document(model, text) - self._by_document(base, text)
            for name, text in self._texts.items()
        }
        intervals = {
            name: bootstrap(rise_G, range(len(rise_G)), level=_LEVEL, resamples=self._resamples)
            for name, rise_G in found.items()
        }
        return Rise(intervals, _stratified(list(found.values()), self._resamples))

    def _by_document(self, model: Loaded, text: _Text) -> NDArray[np.float64]:
        nats_T = scored(model, text.excerpts)
        excerpt_T = np.repeat(text.document_E, [len(excerpt.tokens) - 1 for excerpt in text.excerpts])
        nats_G = np.bincount(excerpt_T, weights=nats_T, minlength=len(text.bytes_G))
        return nats_G / (NATS_PER_BIT * text.bytes_G)


def held_out_texts(
    base: Loaded, domains: Sequence[str], tokens_per_domain: int, window: int, resamples: int
) -> HeldOut:
    """Cut held-out excerpts of each domain; see ``corpus.excerpts``, whose errors it raises."""
    return HeldOut({name: _text(base, name, tokens_per_domain, window) for name in domains}, resamples)


def _text(base: Loaded, domain: str, tokens: int, window: int) -> _Text:
    cut = corpus.excerpts(base.tokenizer.encode, corpus.domain(domain).test, tokens, window)
    numbers: dict[str, int] = {}
    document_E = np.array([numbers.setdefault(excerpt.document, len(numbers)) for excerpt in cut])
    spelt_E = [len(base.tokenizer.decode(list(excerpt.tokens[1:])).encode()) for excerpt in cut]
    bytes_G = np.bincount(document_E, weights=np.array(spelt_E)).astype(np.float64)
    return _Text(cut, document_E, bytes_G)


def _stratified(rises: Sequence[NDArray[np.float64]], resamples: int) -> Interval:
    """Interval of the mean over domains, documents resampled within each (seeded)."""
    draw = np.random.default_rng(0)
    means_R = np.mean(
        [rise_G[draw.integers(len(rise_G), size=(resamples, len(rise_G)))].mean(1) for rise_G in rises],
        axis=0,
    )
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(means_R, [tail, 1 - tail])
    estimate = float(np.mean([rise_G.mean() for rise_G in rises]))
    return Interval(estimate, float(low), float(high), _LEVEL, sum(map(len, rises)))
