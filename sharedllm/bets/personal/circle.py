"""A circle of users: their learning rates, their adapters, those of the controls, and everybody's losses.

Learning rates are swept per method on validation text, for each of the users named in ``swept``; the other
users take the median of those, so that a large base need not be swept for all.

*Covered*: equal tokens for every fit; noise arms that stop on noise. *Not covered*: a learning rate for each
seed (sweeps are of seed 0), or for a control: noise is fitted at the author's rate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from sharedllm import adapters
from sharedllm.bets.authors import Author, shuffled
from sharedllm.bets.evidence import cluster_means
from sharedllm.bets.losses import Losses
from sharedllm.bets.personal.scoring import scored
from sharedllm.bets.runner import progress
from sharedllm.corpus import Excerpt
from sharedllm.errors import BadRecipe
from sharedllm.store import Loaded

__all__ = ["Arms", "Circle"]

Arms = Mapping[str, Callable[[str], Iterable[adapters.Adapter | None]]]
_PIECE = 1024  # tokens in a row from one author where texts are pooled
_JUDGE_SEED = 1 << 20  # the noise that a fit on noise stops on is other noise


class Circle:
    """Users of ``base`` under one budget; raises what ``corpus.user`` raises, ``BadRecipe`` for odd names.

    ``swept`` names the users with a sweep of their own, ``most`` the fits of one sweep at most.
    """

    def __init__(
        self,
        base: Loaded,
        users: Sequence[str],
        budget: adapters.Budget,
        *,
        test_tokens: int,
        precision: str,
        swept: Sequence[str],
        most: int,
    ) -> None:
        if not swept or not set(swept) <= set(users):
            raise BadRecipe(
                f"Learning rates are swept for {', '.join(swept) or 'nobody'}, the users are "
                f"{', '.join(users)}; sweep for at least one of them."
            )
        self.base, self.users, self.budget = base, tuple(users), budget
        self.authors = {name: Author(base, name, budget, test_tokens, precision) for name in users}
        self._precision, self._swept, self._most = precision, tuple(swept), most
        self._sweeps: dict[tuple[str, str], tuple[float, bool, int]] = {}

    def lr(self, user: str | None, method: str) -> float:
        """Give the user's learning rate of a method; for None, and users without a sweep, the median one."""
        if user in self._swept:
            return self._sweep(str(user), method)[0]
        return statistics.median_low(self._sweep(name, method)[0] for name in self._swept)

    def rates(self, methods: Sequence[str]) -> dict[str, dict[str, float]]:
        """Give all users' learning rates by user and method, sweeping where none was swept yet."""
        pairs = [(name, method) for name in self._swept for method in methods]
        for name, method in progress(pairs, "learning-rate sweeps"):
            self._sweep(name, method)
        return {name: {method: self.lr(name, method) for method in methods} for name in self.users}

    @property
    def on_edge(self) -> int:
        """Count the sweeps so far whose best rate has no worse one on one side."""
        return sum(at_edge for _, at_edge, _ in self._sweeps.values())

    def fits_of_sweep(self, user: str, method: str) -> int:
        """Count the fits that found the rate of a user with a sweep."""
        return self._sweep(user, method)[2]

    def _sweep(self, user: str, method: str) -> tuple[float, bool, int]:
        if (user, method) not in self._sweeps:  # without its best fit, which is as large as the base
            found = self.authors[user].sweep(method, 0, self._most)
            self._sweeps[user, method] = found.lr, found.at_edge, len(found.trials)
        return self._sweeps[user, method]

    def fit(self, user: str, method: str, seed: int, tokens: int | None = None) -> adapters.Fit:
        """Fit a method to the user's own text, at the user's rate, with the budget's tokens or others."""
        author, lr = self.authors[user], None if method == "unigram" else self.lr(user, method)
        if tokens is None:
            return author.fit(method, lr, seed)
        return adapters.fit_cached(
            self.base,
            author.train,
            author.validation,
            method,
            lr,
            seed,
            replace(self.budget, tokens=tokens),
            precision=self._precision,
        )

    def anew(self, user: str, method: str, seed: int) -> tuple[adapters.Fit, float]:
        """Make ``fit`` again without the store: the fit and the CPU seconds, of all threads, that it took."""
        author, lr = self.authors[user], None if method == "unigram" else self.lr(user, method)
        started_s = time.process_time()
        made = adapters.fit(
            self.base,
            author.train,
            author.validation,
            method,
            lr,
            seed,
            self.budget,
            precision=self._precision,
        )
        return made, time.process_time() - started_s

    def own(self, user: str, seed: int) -> adapters.Adapter:
        """Give the user's norm adapter."""
        return self.fit(user, "norm", seed).adapter

    def others(self, user: str, seed: int) -> list[adapters.Adapter]:
        """Give every other user's norm adapter: text of the same size by somebody else."""
        return [self.own(name, seed) for name in self.users if name != user]

    def random(self, user: str, seed: int) -> adapters.Fit:
        """Fit gains to uniform random tokens at the user's rate, stopped on more of them (b060)."""
        return self.authors[user].fit("norm", self.lr(user, "norm"), seed, *self._noise(seed))

    def shuffled(self, user: str, seed: int) -> adapters.Fit:
        """Fit gains to the user's tokens in random order, stopped on validation text in random order."""
        author = self.authors[user]
        judge = shuffled(author.validation, seed + _JUDGE_SEED)
        return author.fit("norm", self.lr(user, "norm"), seed, author.shuffled(seed), judge)

    def general(self, seed: int, without: str | None = None) -> adapters.Fit:
        """Fit gains to as much text of each user (but ``without``), under the budget of one user."""
        asked = [self.authors[name] for name in self.users if name != without]
        return adapters.fit_cached(
            self.base,
            _pooled([author.train for author in asked], self.budget.tokens),
            _pooled([author.validation for author in asked], self.budget.validation),
            "norm",
            self.lr(None, "norm"),
            seed,
            self.budget,
            precision=self._precision,
        )

    def nats(self, user: str, adapter: adapters.Adapter | None = None) -> NDArray[np.float64]:
        """Score the user's held-out text under an adapter (None: the base), nats per token."""
        return scored(self.base, self.authors[user].test, adapter)

    def matrix(self, seed: int) -> NDArray[np.float64]:
        """Give ``gains_UU``: how much user j's adapter lowers user i's loss, mean over documents, nats."""
        gains_UU = np.empty((len(self.users), len(self.users)))
        for i, name in enumerate(progress(self.users, "rows of the matrix")):
            base_T = self.nats(name)
            for j, other in enumerate(self.users):
                gain_T = base_T - self.nats(name, self.own(other, seed))
                gains_UU[i, j] = cluster_means(gain_T, self.authors[name].documents).mean()
        return gains_UU

    def vetted(self, user: str, adapter: adapters.Adapter) -> adapters.Adapter | None:
        """Give the adapter if it helps on the user's validation text, else None (the base)."""
        judge = self._judge(user)
        helps = scored(self.base, judge, adapter).sum() < scored(self.base, judge).sum()
        return adapter if helps else None

    def prefix(self, user: str, lengths: Sequence[int]) -> list[int]:
        """Give the end of the user's training text, of the length that serves validation text best.

        ``lengths`` are tokens, at least one; a model reads badly behind more text than it was trained on.
        """
        text = self.authors[user].train
        ends = [text[-length:] for length in lengths]
        if len(ends) == 1:
            return ends[0]
        judge = self._judge(user)
        return min(ends, key=lambda end: scored(self.base, judge, prefix=end).sum())

    def losses(self, arms: Arms, users: Sequence[str] | None = None) -> Losses:
        """Score arms on held-out text; an arm of several adapters counts as their mean loss.

        An arm is a function from a user to the adapters it is made of; ``users`` are all unless given.
        """
        table = Losses()
        for name in progress(self.users if users is None else users, "users fitted and scored"):
            scores = {
                arm: np.mean([self.nats(name, adapter) for adapter in of(name)], axis=0)
                for arm, of in arms.items()
            }
            table.add(name, self.authors[name].documents, scores)
        return table

    def _judge(self, user: str) -> list[Excerpt]:
        text, window = self.authors[user].validation, self.budget.window
        count, room = min(self.budget.validation, len(text) - 1) // window, len(text) - 1 - window
        starts = [room * i // max(1, count - 1) for i in range(count)]
        return [Excerpt("validation", tuple(text[start : start + window + 1])) for start in starts]

    def _noise(self, seed: int) -> tuple[list[int], list[int]]:
        high = self.base.model.config.vocab_size

        def drawn(tokens: int, seed: int) -> list[int]:
            generator = torch.Generator().manual_seed(seed)
            noise: list[int] = torch.randint(high, (tokens,), generator=generator).tolist()
            return noise

        spare = self.budget.window + 1
        return (
            drawn(2 * self.budget.tokens + spare, seed),
            drawn(self.budget.validation + spare, seed + _JUDGE_SEED),
        )


def _pooled(texts: Sequence[Sequence[int]], each: int) -> list[int]:
    """Take about ``each`` tokens of every text, in pieces spread evenly over it, one author after another."""
    pool: list[int] = []
    for text in texts:
        count = max(1, min(each, len(text)) // _PIECE)
        room = max(0, len(text) - _PIECE)
        size = min(_PIECE, each)
        for i in range(count):
            start = room * i // max(1, count - 1)
            pool += text[start : start + size]
    return pool
