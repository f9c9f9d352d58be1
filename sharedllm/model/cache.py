"""Keys and values of the positions that were already computed, so that each token is computed once.

Rows may have different lengths. A right-padded batch needs nothing special: compute it whole, then roll each
row back over its padding; what lies behind a row's length is never attended to and is overwritten later.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sharedllm.errors import BadPrompt
from sharedllm.model.config import Config

__all__ = ["Cache", "fits_context"]


class Cache:
    """The keys and values of layers ``[start, stop)``: two ``[B, K, S, C]`` tensors each.

    ``lengths[b]`` positions of row ``b`` are valid; ``capacity`` grows on demand. Raises ``BadPrompt`` when
    a row would outgrow the model's context.
    """

    def __init__(
        self,
        config: Config,
        start: int,
        stop: int,
        batch: int,
        capacity: int = 256,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.start, self.stop = config, start, stop
        self.lengths: list[int] = [0] * batch
        self.capacity = max(1, min(capacity, config.context))
        shape = (batch, config.kv_heads, self.capacity, config.head_width)
        # Ordinary tensors even inside inference_mode, so that a cache outlives the block it was made in.
        with torch.inference_mode(False):
            self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(start, stop)]
            self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(start, stop)]

    @property
    def size_bytes(self) -> int:
        """Memory that keys and values occupy."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.keys + self.values)

    def reserve(self, more: int) -> None:
        """Make room for ``more`` positions in every row, at least doubling what is grown.

        Raises ``BadPrompt`` beyond the model's context.
        """
        needed = max(self.lengths, default=0) + more
        fits_context(self.config, needed)
        if needed > self.capacity:
            old, self.capacity = self.capacity, min(max(needed, 2 * self.capacity), self.config.context)
            with torch.inference_mode(False):
                self.keys = [_grown(keys, old, self.capacity) for keys in self.keys]
                self.values = [_grown(values, old, self.capacity) for values in self.values]

    def advance(self, positions: int) -> None:
        """Declare ``positions`` more of each row valid, after all layers wrote them."""
        self.lengths = [length + positions for length in self.lengths]

    def rollback(self, k: int | Sequence[int]) -> None:
        """Forget the last ``k`` positions of every row, or ``k[b]`` of row ``b``.

        The next forward replaces them. Raises ``ValueError`` when a row has fewer.
        """
        steps = [k] * len(self.lengths) if isinstance(k, int) else list(k)
        lengths = [length - step for length, step in zip(self.lengths, steps, strict=True)]
        if min(steps, default=0) < 0 or min(lengths, default=0) < 0:
            raise ValueError(f"Can't roll rows of lengths {self.lengths} back by {steps} positions.")
        self.lengths = lengths

    def select(self, rows: Sequence[int]) -> None:
        """Keep only ``rows``, in that order (a row may be repeated)."""
        self.lengths = [self.lengths[row] for row in rows]
        with torch.inference_mode(False):
            self.keys = [keys[list(rows)] for keys in self.keys]
            self.values = [values[list(rows)] for values in self.values]


def fits_context(config: Config, tokens: int) -> None:
    """Raise ``BadPrompt`` if a sequence of ``tokens`` is longer than the model's context."""
    if tokens > config.context:
        raise BadPrompt(
            f"{tokens:,} tokens do not fit this model's context of {config.context:,}; "
            "shorten the prompt or ask for fewer tokens."
        )


def _grown(old: Tensor, length: int, capacity: int) -> Tensor:
    new = old.new_zeros(*old.shape[:2], capacity, old.shape[3])
    new[:, :, :length] = old
    return new
