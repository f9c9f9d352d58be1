"""Checkpoints that resume exactly: weights, optimiser moments, step, random state and the loss curve so far.

*Covered*: a process killed at any moment (files appear whole or not at all), and a resumed run whose losses
and weights equal the undisturbed run's bit for bit, on the same CPU with the same number of threads. A
checkpoint of another recipe, seed, text or model is refused. *Not covered*: bits across machines, thread
counts or GPUs, where sums are taken in another order.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from sharedllm.errors import BadRecipe
from sharedllm.store import atomic

__all__ = ["read", "write"]

_FORMAT = 1


def write(path: Path, identity: dict[str, Any], state: dict[str, Any]) -> None:
    """Store ``state`` (tensors, numbers, strings, lists, dicts) with what it belongs to. Raises
    ``WriteFailed``.
    """
    buffer = io.BytesIO()
    whole = {"format": _FORMAT, "identity": identity, "state": state, "rng": torch.get_rng_state()}
    torch.save(whole, buffer)
    atomic.write_bytes(path, buffer.getvalue())


def read(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Return the state at ``path`` and restore torch's generator, or ``None`` when there is no checkpoint
    yet.

    Raises ``BadRecipe`` when the file is damaged or belongs to another run; the sentence names what differs.
    """
    if not path.exists():
        return None
    try:
        # weights_only: a checkpoint may come from elsewhere, and must not be able to run code
        whole = torch.load(path, map_location="cpu", weights_only=True)
        found, state, rng = whole["identity"], whole["state"], whole["rng"]
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise BadRecipe(
            f"{path} is no readable checkpoint ({type(error).__name__}); delete it to start afresh."
        ) from error
    if whole.get("format") != _FORMAT:
        raise BadRecipe(
            f"{path} has checkpoint format {whole.get('format')}, not {_FORMAT}; delete it to start afresh."
        )
    differing = sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key))
    if differing:
        was = ", ".join(f"{key} {found.get(key)!r}, now {identity.get(key)!r}" for key in differing)
        raise BadRecipe(
            f"{path} belongs to another run ({was[:600]}); resume with the same, or give another folder."
        )
    torch.set_rng_state(rng)
    restored: dict[str, Any] = state
    return restored
