"""The specialists that bets mix: one per domain, all of one base, made once and kept by content.

A base that was trained here (``toy``) is small enough to be trained on, whole; a pretrained one gets a norm
adapter per domain instead. Both answer the same call, so that a notebook need not know which it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sharedllm import adapters, corpus, training
from sharedllm.bets.runner import progress
from sharedllm.model import Transformer
from sharedllm.store import Loaded

__all__ = ["TRAINED_WHOLE", "Specialist", "adapted", "held_out", "itself", "read", "specialists"]

TRAINED_WHOLE = ("toy", "30m")
# Bytes of text to encode for each token of a fit: some ten times what it will see, and no more
_TEXT_PER_TOKEN = 40
_BATCH, _WINDOW, _VALIDATION_TOKENS, _EVALUATIONS = 4, 128, 1024, 2


@dataclass(frozen=True)
class Specialist:
    """What answers for one domain: ``logits(tokens_T)`` gives ``logits_TV`` in fp32, without gradients."""

    domain: str
    logits: Callable[[Tensor], Tensor]


def specialists(
    base: Loaded, domains: Sequence[str], *, tokens: int, lr: float, seed: int
) -> list[Specialist]:
    """Make, or find again, one specialist of ``base`` per domain from ``tokens`` training tokens each.

    ``lr`` is that of norm adapters; whole specialists follow ``training.SPECIALIST``. Raises what the rooms
    raise: ``UnknownName``, ``MissingSource``, ``BadRecipe``.
    """
    make = _trained if base.manifest.name in TRAINED_WHOLE else _adapted
    return [make(base, corpus.domain(name), tokens, lr, seed) for name in progress(domains, "specialists")]


def itself(base: Loaded) -> Specialist:
    """Give the base without any specialisation, to compare with."""
    return Specialist("base", torch.no_grad()(lambda tokens_T: _logits(base.model, tokens_T)))


def held_out(
    base: Loaded, domains: Sequence[str], tokens_per_domain: int, window: int
) -> list[tuple[str, corpus.Excerpt]]:
    """Cut held-out excerpts of each domain, as (domain, excerpt); see ``corpus.excerpts``."""
    encode = base.tokenizer.encode
    cuts = (
        (name, corpus.excerpts(encode, corpus.domain(name).test, tokens_per_domain, window))
        for name in domains
    )
    return [(name, excerpt) for name, cut in cuts for excerpt in cut]


def read(mixed: Sequence[Specialist], excerpt: corpus.Excerpt) -> tuple[Tensor, Tensor]:
    """Let every specialist read an excerpt: ``logits_NTV`` (fp32), and the tokens ``target_T`` that came."""
    tokens_T = torch.tensor(excerpt.tokens)
    return torch.stack([specialist.logits(tokens_T[:-1]) for specialist in mixed]), tokens_T[1:]


def _logits(model: Transformer, tokens_T: Tensor) -> Tensor:
    logits_TV: Tensor = model(tokens_T[None])[0]
    return logits_TV.float()


def _trained(base: Loaded, domain: corpus.Domain, tokens: int, lr: float, seed: int) -> Specialist:
    recipe = replace(training.SPECIALIST, tokens=tokens)
    model = training.load_specialist(training.specialist(base, domain, recipe, seed=seed), base)

    @torch.no_grad()
    def logits(tokens_T: Tensor) -> Tensor:
        return _logits(model, tokens_T)

    return Specialist(domain.name, logits)


def adapted(base: Loaded, domain: corpus.Domain, tokens: int, lr: float, seed: int) -> adapters.Adapter:
    """Fit, or find again, the norm adapter that makes a pretrained base a specialist of a domain."""
    budget = adapters.Budget(tokens, _BATCH, _WINDOW, _EVALUATIONS, _VALIDATION_TOKENS)
    train = corpus.sampled(base.tokenizer.encode, domain.train, _TEXT_PER_TOKEN * tokens)
    validation = corpus.sampled(
        base.tokenizer.encode, domain.validation, _TEXT_PER_TOKEN * _VALIDATION_TOKENS
    )
    return adapters.fit_cached(base, train, validation, "norm", lr, seed, budget).adapter


def _adapted(base: Loaded, domain: corpus.Domain, tokens: int, lr: float, seed: int) -> Specialist:
    adapter = adapted(base, domain, tokens, lr, seed)

    @torch.no_grad()
    def logits(tokens_T: Tensor) -> Tensor:
        with adapters.applied(base.model, adapter):
            return _logits(base.model, tokens_T)

    return Specialist(domain.name, logits)
