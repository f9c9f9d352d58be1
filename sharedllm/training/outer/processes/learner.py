"""The inner half of a worker: from the common state, H steps of its own optimiser on its own shard."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from sharedllm.errors import BadRecipe
from sharedllm.model import Transformer
from sharedllm.store import atomic
from sharedllm.training.data import Streams
from sharedllm.training.loop import Run
from sharedllm.training.outer.outer import put_weights, weights_of
from sharedllm.training.outer.processes.settings import Settings
from sharedllm.training.outer.processes.state import State
from sharedllm.training.outer.worker import Flipped

__all__ = ["Learner", "read_text", "shard", "write_text"]

_APART = 1_000_003  # between the seeds of two workers, as in the simulation: a test holds them equal


class Learner:
    """The model and the optimiser of worker ``number``; its optimiser's moments stay with it over rounds."""

    def __init__(self, settings: Settings, streams: Streams, number: int, *, flipped: bool = False) -> None:
        torch.manual_seed(settings.seed)
        self._model = Transformer(settings.config).train()
        self._steps = settings.inner_steps
        kind = Flipped if flipped else Run
        seed = settings.seed + _APART * number
        self._run = kind(self._model, shard(streams, settings, number), settings.recipe, seed)

    def start(self) -> State:
        """Return the state before the first round, which every worker computes alike from the seed."""
        return State.start(weights_of(self._model))

    def update(self, state: State) -> tuple[Tensor, float]:
        """Return the pseudo-gradient of ``state``'s round, and the mean loss of its steps in nats per token.

        Raises ``BadRecipe`` when the loss is not finite.
        """
        put_weights(self._model, state.weights_P)
        first = state.round * self._steps
        losses = [self._run.step(step) for step in range(first, first + self._steps)]
        return state.weights_P - weights_of(self._model), statistics.fmean(losses)

    def moments(self) -> list[dict[str, Any]]:
        """Return the inner optimisers' states, for a checkpoint."""
        return [optimizer.state_dict() for optimizer in self._run.optimizers]

    def restore(self, moments: list[dict[str, Any]]) -> None:
        """Load what ``moments`` returned."""
        for optimizer, stored in zip(self._run.optimizers, moments, strict=True):
            optimizer.load_state_dict(stored)


def shard(streams: Streams, settings: Settings, number: int) -> Streams:
    """Return the text that worker ``number`` reads.

    ``mixed``: its n-th part of every stream; ``domains``: one whole stream, so that no two of the first
    workers read the same kind of text. Newcomers share the shards of those who were there before.
    """
    part, names = number % settings.workers, sorted(streams.tokens)
    if settings.shards == "domains":
        name = names[number % len(names)]
        return Streams({name: streams.tokens[name]})
    cut = {}
    for name in names:
        stream = streams.tokens[name]
        edges = [len(stream) * edge // settings.workers for edge in (part, part + 1)]
        cut[name] = stream[edges[0] : edges[1]]
    return Streams(cut)


def write_text(path: Path, streams: Streams) -> None:
    """Store the encoded text for the workers of this machine."""
    atomic.write_bytes(path, safetensors.torch.save(dict(streams.tokens)))


def read_text(path: Path, settings: Settings) -> Streams:
    """Read what ``write_text`` wrote. Raises ``BadRecipe`` for text that this training does not use."""
    try:
        tokens = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadRecipe(f"{path} holds no encoded text ({error}); start the training again.") from error
    streams = Streams(tokens)
    if streams.sha256 != settings.text_sha256:
        raise BadRecipe(
            f"The text in {path} is not the text of this training; both sides need the same version of "
            "SharedLLM and, for the domain of code, of Python."
        )
    return streams
