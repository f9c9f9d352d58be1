"""Held-out loss of what rules make of honest and lying norm adapters, user by user.

*Covered*: each rule is charged with the attack that costs it most, chosen by the mean loss over users, in
each seed anew. *Not covered*: an interval for that choice: the costliest of several is biased upwards, for
every rule alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sharedllm.bets.liars.adapters import as_adapter
from sharedllm.bets.liars.harm import attacked
from sharedllm.bets.losses import Losses
from sharedllm.bets.personal import Circle
from sharedllm.bets.runner import progress

__all__ = ["losses_under_attack"]

_Nats = dict[str, NDArray[np.float64]]


def losses_under_attack(
    circle: Circle,
    honest: Sequence[Tensor],
    rules: Sequence[str],
    f: int,
    attacks: Sequence[str],
    seeds: Sequence[int],
) -> tuple[Losses, dict[str, list[float]]]:
    """Score ``base``, ``honest mean`` and each rule under its costliest attack, on all users' held-out text.

    ``honest`` holds one ``deltas_HP`` per seed; a token's loss is the mean over seeds. The second table gives
    each arm's mean loss over users by seed, nats per token.
    """
    runs: dict[str, list[_Nats]] = {arm: [] for arm in ("base", "honest mean", *rules)}
    for seed, deltas_HP in progress(list(zip(seeds, honest, strict=True)), "seeds scored under attack"):
        runs["base"].append({user: circle.nats(user) for user in circle.users})
        runs["honest mean"].append(_nats(circle, deltas_HP.mean(0)))
        for rule in rules:
            tried = [_nats(circle, one_P) for one_P in attacked(deltas_HP, rule, f, attacks, seed).values()]
            runs[rule].append(max(tried, key=_mean))
    losses = Losses()
    for user in circle.users:
        arms = {arm: np.mean([run[user] for run in found], axis=0) for arm, found in runs.items()}
        losses.add(user, circle.authors[user].documents, arms)
    return losses, {arm: [_mean(run) for run in found] for arm, found in runs.items()}


def _nats(circle: Circle, delta_P: Tensor) -> _Nats:
    adapter = as_adapter(circle.base, delta_P)
    return {user: circle.nats(user, adapter) for user in circle.users}


def _mean(nats: _Nats) -> float:
    return float(np.mean([nats_T.mean() for nats_T in nats.values()]))
