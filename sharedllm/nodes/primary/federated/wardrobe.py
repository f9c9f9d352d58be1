"""Adapters on their way to the workers of one pipeline: lent before they are worn, and anew after a failover.

*Covered*: more adapters than workers hold (the longest unused is taken back; whoever came first goes before
whoever still waits), a request that wears more than they ever hold (refused), a pipeline that is left while
one is on its way. *Not covered*: a worker that refuses an adapter; its fault ends the pipeline, as any does.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor

from sharedllm.engines import Ends
from sharedllm.errors import BadAdapter
from sharedllm.nodes.errors import NoPipeline
from sharedllm.nodes.primary.batching import Batcher
from sharedllm.nodes.primary.ring import Ring
from sharedllm.nodes.primary.sequence import Sequence

__all__ = ["Wardrobe", "Worn", "rows_worn"]


@dataclasses.dataclass(frozen=True, eq=False)
class Worn:
    """An adapter as a sequence wears it: what it adds to every gain of its base, fp32, and the final norm's
    whole gain, which the primary keeps."""

    delta: Mapping[str, Tensor]
    gain_D: Tensor

    @classmethod
    def over(cls, ends: Ends, delta: Mapping[str, Tensor], name: str) -> Worn:
        """The adapter ``delta``, called ``name``, on the base of ``ends``. Raises ``BadAdapter``."""
        config, norms = ends.config, ("attention_norm", "feedforward_norm")
        expected = [f"blocks.{layer}.{norm}.weight" for layer in range(config.layers) for norm in norms]
        whole = {}
        for gain in [*expected, "norm.weight"]:
            delta_D = delta.get(gain)
            if delta_D is None or delta_D.shape != (config.width,) or not bool(delta_D.isfinite().all()):
                raise BadAdapter(
                    f"The adapter {name} can't be worn: its {gain} is missing, no vector of {config.width} "
                    "numbers, or holds NaN. Fit it again on the base that is served."
                )
            whole[gain] = delta_D.float()
        return cls(whole, ends.gain_D + whole["norm.weight"])

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 of its numbers: two that are alike are the same."""
        digest = hashlib.sha256()
        for name in sorted(self.delta):
            digest.update(name.encode() + b"\0" + self.delta[name].contiguous().numpy().tobytes())
        return digest.hexdigest()


class Wardrobe:
    """What one loop has lent to the workers of its present pipeline. Only the loop's thread calls it.

    An adapter that is taken back may still be worn by slots whose end is on its way round the ring, while
    the word goes to each worker directly. So it is taken back only when a later step has come home.
    """

    def __init__(self) -> None:
        self._numbers: OrderedDict[str, int] = OrderedDict()  # by key, longest unused first
        self._leaving: dict[int, int | None] = {}  # by number: the step after which nobody wears it
        self._last = 0

    def opened(self) -> None:
        """The workers are others, and hold nothing."""
        self._numbers.clear()
        self._leaving.clear()

    def lend(self, ring: Ring, batcher: Batcher) -> None:
        """Send what waiting requests wear and workers lack; ``batcher.worn`` gains it once they have it.

        A request that wears more than the pipeline holds at a time ends with ``NoPipeline``.
        """
        _refuse_the_overdressed(ring, batcher)
        for sequence in batcher.waiting:
            if sequence.worn is None:
                continue
            key, worn = sequence.worn.key, batcher.worn
            if key in self._numbers:
                self._numbers.move_to_end(key)
            elif len(self._numbers) + len(self._leaving) < ring.adapters:
                self._last += 1
                self._numbers[key] = number = self._last
                then = functools.partial(worn.__setitem__, key, number)
                ring.lend(number, sequence.worn.delta, then)
            elif not self._leaving:
                self._dismiss(batcher, sequence.number)

    def sent(self, step: int) -> None:
        """A step is on its way that ends the slots of what is to be taken back."""
        self._leaving = {number: step if at is None else at for number, at in self._leaving.items()}

    def returned(self, ring: Ring, step: float) -> None:
        """All steps up to ``step`` have come home."""
        for number, at in list(self._leaving.items()):
            if at is None or at <= step:
                del self._leaving[number]
                ring.lend(number, None, lambda: None)

    def _dismiss(self, batcher: Batcher, number: int) -> None:
        """Choose the longest unused adapter to be taken back, if neither what is computed nor what waits up
        to request ``number`` needs it."""
        earlier = [sequence for sequence in batcher.waiting if sequence.number <= number]
        needed = {sequence.adapter for sequence in [*batcher.active, *earlier]}
        key = next((key for key in self._numbers if key in batcher.worn and key not in needed), None)
        if key is not None:
            self._leaving[self._numbers.pop(key)] = None
            batcher.forget(key)


def _refuse_the_overdressed(ring: Ring, batcher: Batcher) -> None:
    """End waiting requests whose adapters could never be held all at once."""
    for _, together in itertools.groupby(list(batcher.waiting), key=lambda s: s.number):
        group = list(together)
        most, worn = ring.adapters, len({s.adapter for s in group if s.worn is not None})
        if worn > most:
            member = min(ring.route.members, key=lambda m: ring.opened[m.node].adapters)
            sentence = (
                f"This request wears {worn} adapter{'s' * (worn > 1)}, but {member.name} has memory for "
                f"{most} beside its layers and their caches. Ask for the base, or for fewer specialists; or "
                "give the workers more memory, or let more machines join."
            )
            batcher.refuse(group, NoPipeline(sentence))


def rows_worn(sequences: list[Sequence], base_D: Tensor) -> Tensor | None:
    """The final norm's gain for each row, ``gains_RD``; None where all wear the base's own."""
    if all(sequence.worn is None for sequence in sequences):
        return None
    return torch.stack([base_D if s.worn is None else s.worn.gain_D for s in sequences])
