"""A market of specialists in which a bloc serves badly, praises its own and blames the others.

Each round every user sends requests, which are routed by weight; honest users rate what they got, with noise.
The bloc's users rate every specialist of the bloc 1 and every other 0, each as often as they like
(``stuffing``), whether they used it or not. ``whitewash``: the bloc's specialists take new identities every
so many rounds. ``equal``: all have the same base quality, so that reputation alone does the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sharedllm.nodes.trust.reputation import Ratings, shares

__all__ = ["RULES", "Market"]

Rule = Literal["naive", "decayed", "diverse"]
RULES: tuple[Rule, ...] = ("naive", "decayed", "diverse")
_HONEST = (0.8, 0.95)
_BAD = 0.2
_BLOC_BASE = 0.5
_NOISE = 0.1


@dataclass(frozen=True)
class Market:
    """``run`` gives the bloc's share of requests in each round.

    ``bloc`` is its share of users and of specialists. ``attack``: off, it serves and rates as the honest do.
    """

    users: int
    specialists: int
    bloc: float
    rule: Rule
    equal: bool = False
    whitewash: int | None = None
    attack: bool = True
    stuffing: int = 20
    requests: int = 3
    alpha: float = 3.0
    half_life: float = 30.0

    def run(self, rounds: int, seed: int) -> list[float]:
        """Play ``rounds`` rounds."""
        draw = np.random.default_rng(seed)
        bad_users, bad = round(self.users * self.bloc), round(self.specialists * self.bloc)
        quality_N = draw.uniform(*_HONEST, self.specialists)
        base_N = np.ones(self.specialists) if self.equal else quality_N.copy()
        if self.attack:
            quality_N[:bad] = _BAD
            if not self.equal:
                base_N[:bad] = _BLOC_BASE
        ratings = Ratings(self.users, self.specialists, self.half_life)
        taken = []
        for number in range(rounds):
            if self.attack and self.whitewash and number % self.whitewash == self.whitewash - 1:
                ratings.forget(np.arange(bad))
            share_N = shares(base_N, getattr(ratings, self.rule)(), self.alpha)
            taken.append(float(share_N[:bad].sum()))
            ratings.age()
            first = bad_users if self.attack else 0
            user = np.repeat(np.arange(first, self.users), self.requests)
            chosen = draw.choice(self.specialists, size=len(user), p=share_N)
            score = np.clip(quality_N[chosen] + draw.normal(0, _NOISE, len(user)), 0, 1)
            ratings.add(user, chosen, score)
            if self.attack:
                everyone, everything = np.divmod(np.arange(bad_users * self.specialists), self.specialists)
                ratings.add(everyone, everything, (everything < bad).astype(float), self.stuffing)
        return taken

    def pump(self, rounds: int, seed: int) -> tuple[float, float]:
        """The bloc's share of requests over its share of specialists: in the first and last quarter."""
        taken, quarter = self.run(rounds, seed), max(1, rounds // 4)
        return float(np.mean(taken[:quarter])) / self.bloc, float(np.mean(taken[-quarter:])) / self.bloc
