"""Losses per held-out token, by group, document and arm: what a bet about text compares.

A group is a domain or an author; an arm is a model, a combiner or an adapter. All arms of a group score the
same tokens, so differences are paired by token and intervals cluster by document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharedllm.bets.evidence import Interval, bootstrap, cluster_means

__all__ = ["Losses"]


class Losses:
    """A table of losses in nats, to which ``add`` appends tokens."""

    def __init__(self) -> None:
        self._arms: dict[str, dict[str, NDArray[np.float64]]] = {}
        self._documents: dict[str, list[str]] = {}

    def add(self, group: str, documents: Sequence[str], arms: Mapping[str, ArrayLike]) -> None:
        """Append tokens of ``group``: the document of each, and ``nats_T`` of every arm.

        Raises ``ValueError`` when lengths differ or arms differ from those the group has.
        """
        new = {arm: np.asarray(nats, dtype=np.float64) for arm, nats in arms.items()}
        old = self._arms.get(group, {arm: np.empty(0) for arm in new})
        if set(old) != set(new) or any(nats_T.shape != (len(documents),) for nats_T in new.values()):
            raise ValueError(f"Each arm of {group} needs one loss for each of {len(documents)} tokens.")
        self._arms[group] = {arm: np.concatenate([old[arm], nats_T]) for arm, nats_T in new.items()}
        self._documents.setdefault(group, []).extend(documents)

    @property
    def tokens(self) -> int:
        """How many tokens were scored, over all groups."""
        return sum(map(len, self._documents.values()))

    def documents(self) -> Iterator[tuple[str, str, dict[str, NDArray[np.float64]]]]:
        """Give each document's group, name and ``nats_T`` by arm, in order of first appearance."""
        for group, names in self._documents.items():
            names_T = np.array(names)
            for name in dict.fromkeys(names):
                yield group, name, {arm: n_T[names_T == name] for arm, n_T in self._arms[group].items()}

    def table(self) -> dict[str, dict[str, float]]:
        """Give the mean loss of every arm per group, nats per token."""
        return {g: {arm: float(n_T.mean()) for arm, n_T in arms.items()} for g, arms in self._arms.items()}

    def total(self, group: str, arm: str) -> float:
        """Give the summed loss of an arm over a group, nats."""
        return float(self._arms[group][arm].sum())

    def by_token(self, group: str, arm: str) -> NDArray[np.float64]:
        """Give an arm's loss of every token of a group, in the order in which they were added."""
        return self._arms[group][arm]

    def difference(self, group: str, worse: str, better: str, resamples: int) -> Interval:
        """Give the loss of ``worse`` minus that of ``better``, nats per token, over documents."""
        return bootstrap(*self._paired(group, worse, better), resamples=resamples, seed=0)

    def by_document(self, group: str, worse: str, better: str) -> NDArray[np.float64]:
        """Give the same difference as one mean per document, ``means_G``."""
        return cluster_means(*self._paired(group, worse, better))

    def _paired(self, group: str, worse: str, better: str) -> tuple[NDArray[np.float64], list[str]]:
        return self._arms[group][worse] - self._arms[group][better], self._documents[group]
