"""An author on trial: text to learn from, text to choose settings on, held-out books, and the control texts.

Every adapter bet asks the same of an author, so it is asked here once: fits are kept by content and shared
between bets, held-out losses are checkpoints of the bet's own grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sharedllm import adapters, corpus
from sharedllm.bets.runner import checkpoint
from sharedllm.corpus import Document
from sharedllm.model import token_nats
from sharedllm.shapes import bits_per_byte
from sharedllm.store import Loaded

__all__ = ["Author", "shuffled"]


def shuffled(tokens: Sequence[int], seed: int) -> list[int]:
    """Put tokens in random order: word counts stay, sentences go."""
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))
    return [tokens[i] for i in order.tolist()]


class Author:
    """One of ``corpus.users`` with a base and a budget; raises what ``corpus.user`` raises.

    ``train`` and ``validation`` are the author's tokens to learn from and to choose settings on, ``test`` the
    held-out excerpts; ``documents`` names the held-out document of each scored token.
    """

    def __init__(
        self, base: Loaded, name: str, budget: adapters.Budget, test_tokens: int, precision: str
    ) -> None:
        self._base, self._budget, self._precision = base, budget, precision
        user = corpus.user(name)
        self.name = name
        self.train = self._tokens(user.train)
        self.validation = self._tokens(user.validation)
        self.test = corpus.excerpts(base.tokenizer.encode, user.test, test_tokens, budget.window)
        self.documents = [excerpt.document for excerpt in self.test for _ in excerpt.tokens[1:]]
        self._key = {"base": base.manifest.weights_sha256, "user": user.sha256, "test_tokens": test_tokens}

    def _tokens(self, documents: Sequence[Document]) -> list[int]:
        return [token for document in documents for token in self._base.tokenizer.encode(document.text)]

    def fit(
        self,
        method: str,
        lr: float | None,
        seed: int,
        text: Sequence[int] | None = None,
        judge: Sequence[int] | None = None,
    ) -> adapters.Fit:
        """Fit on ``text``, stopped on ``judge``: by default the author's training and validation text."""
        own = self.train if text is None else text
        held = self.validation if judge is None else judge
        return adapters.fit_cached(
            self._base, own, held, method, lr, seed, self._budget, precision=self._precision
        )

    def sweep(self, method: str, seed: int, most: int) -> adapters.Sweep:
        """Find the method's learning rate on the author's validation text."""
        return adapters.sweep(
            self._base,
            self.train,
            self.validation,
            method,
            seed,
            self._budget,
            most=most,
            precision=self._precision,
        )

    def random(self, seed: int) -> list[int]:
        """Draw as many uniform random tokens as the author wrote (the noise floor, b060)."""
        generator = torch.Generator().manual_seed(seed)
        high = self._base.model.config.vocab_size
        drawn: list[int] = torch.randint(high, (len(self.train),), generator=generator).tolist()
        return drawn

    def shuffled(self, seed: int) -> list[int]:
        """Put the author's own tokens in random order."""
        return shuffled(self.train, seed)

    def losses(self, fit: adapters.Fit | None = None, **cell: object) -> list[float]:
        """Score the held-out books under a fit (none: the base), in nats; kept as a checkpoint.

        ``cell`` says which cell of the grid this is, and must tell it from every other.
        """

        @torch.no_grad()
        def score() -> list[float]:
            rows = (torch.tensor([excerpt.tokens]) for excerpt in self.test)
            return [nats for row in rows for nats in token_nats(self._base.model, row)[0].tolist()]

        def compute() -> list[float]:
            if fit is None:
                return score()
            with adapters.applied(self._base.model, fit.adapter):
                return score()

        key = {**self._key, "budget": vars(self._budget), "precision": self._precision, "cell": cell}
        kept: list[float] = checkpoint(f"held-out books of {self.name}", key, compute)
        return kept

    def bits_per_byte(self, total_nats: float) -> float:
        """Convert a summed held-out loss to bits per byte of the scored text."""
        decode = self._base.tokenizer.decode
        scored_bytes = sum(len(decode(excerpt.tokens[1:]).encode()) for excerpt in self.test)
        return bits_per_byte(total_nats, scored_bytes)
