"""Norm adapters as vectors that rules can aggregate, and the honest workers who fitted them.

A norm adapter is a diagonal: its mean is the mean of what it does, which the product of two LoRA factors is
not. *Covered*: workers who fit one user's text each (non-iid), or all users' text drawn anew (iid), with
equal tokens. *Not covered*: workers who train on each other's aggregate over many rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharedllm.adapters import Adapter
from sharedllm.bets.personal import Circle
from sharedllm.bets.runner import progress
from sharedllm.errors import BadAdapter
from sharedllm.store import Loaded

__all__ = ["as_adapter", "as_vector", "independent_p", "pooled_workers", "user_workers"]


def as_vector(base: Loaded, adapter: Adapter) -> Tensor:
    """Line up an adapter's δ in the order of the base's gains: ``delta_P`` in fp64.

    Raises ``BadAdapter`` unless it is a norm adapter of this base.
    """
    names = list(base.model.gains())
    if adapter.method != "norm" or set(adapter.tensors) != set(names):
        raise BadAdapter(
            f"Only norm adapters of {base.manifest.name} can be lined up, not a {adapter.method} one."
        )
    return torch.cat([adapter.tensors[name].double().flatten() for name in names])


def as_adapter(base: Loaded, delta_P: Tensor) -> Adapter:
    """Make the adapter that such a vector is; raises ``BadAdapter`` for another length, NaN or infinity."""
    gains = base.model.gains()
    sizes = [gain.numel() for gain in gains.values()]
    if delta_P.shape != (sum(sizes),):
        raise BadAdapter(f"The base has {sum(sizes)} gains, and the vector the shape {tuple(delta_P.shape)}.")
    parts = zip(gains.items(), torch.split(delta_P.float(), sizes), strict=True)
    return Adapter("norm", base.manifest.weights_sha256, {name: d.view_as(g) for (name, g), d in parts})


def user_workers(circle: Circle, seed: int) -> Tensor:
    """Give one worker per user, each with a fit of its own user's text: ``deltas_HP``."""
    return torch.stack([as_vector(circle.base, circle.own(user, seed)) for user in circle.users])


def pooled_workers(circle: Circle, seed: int) -> Tensor:
    """Give as many workers, each with a fit of text drawn anew from all users': ``deltas_HP``."""
    count = len(circle.users)
    draws = progress(range(seed * count, (seed + 1) * count), f"pooled fits of seed {seed}")
    return torch.stack([as_vector(circle.base, circle.general(draw).adapter) for draw in draws])


def independent_p(by_seed: Sequence[Tensor], permutations: int) -> float:
    """Give the p-value of "users' adapters are no more alike over seeds than anybody's".

    ``by_seed`` are ``deltas_HP``, one per seed. The statistic is the mean distance between two seeds'
    adapters of the same user; each seed's users are permuted at random. Raises ``ValueError`` for fewer than
    two seeds.
    """
    if len(by_seed) < 2:
        raise ValueError(f"{len(by_seed)} seeds have no two fits of one user to compare; give two or more.")
    stacked_SHP = torch.stack(list(by_seed))
    seeds, users = stacked_SHP.shape[:2]
    flat = stacked_SHP.flatten(0, 1)
    apart = torch.cdist(flat, flat).view(seeds, users, seeds, users).numpy()
    draw = np.random.default_rng(0)
    pairs = [(s, t) for s in range(seeds) for t in range(s)]

    def within(orders: Sequence[NDArray[np.int64]]) -> float:
        return float(np.mean([apart[s, orders[s], t, orders[t]].mean() for s, t in pairs]))

    observed = within([np.arange(users)] * seeds)
    drawn = [within([draw.permutation(users) for _ in range(seeds)]) for _ in range(permutations)]
    return (1 + sum(value <= observed * (1 + 1e-12) for value in drawn)) / (1 + permutations)
