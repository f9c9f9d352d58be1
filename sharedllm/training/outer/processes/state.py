"""What all workers hold in common between rounds, and what a worker alone adds to it."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sharedllm.training.outer.outer import Outer

__all__ = ["State"]


@dataclass(frozen=True)
class State:
    """The model before ``round``: ``weights_P`` and the outer step's ``momentum_P``, fp32. Never changed."""

    round: int
    weights_P: Tensor
    momentum_P: Tensor

    @classmethod
    def start(cls, weights_P: Tensor) -> State:
        """Return the state before the first round."""
        # zeros rather than None: whoever takes this state over can't tell the two apart
        return cls(0, weights_P, torch.zeros_like(weights_P))

    @cached_property
    def sha256(self) -> str:
        """Hash round, weights and momentum: two workers whose hashes agree will go on alike."""
        digest = hashlib.sha256(struct.pack("<Q", self.round))
        for vector_P in (self.weights_P, self.momentum_P):
            digest.update(vector_P.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def after(self, update_P: Tensor, lr: float, momentum: float) -> State:
        """Return the state that the outer step along ``update_P`` leads to."""
        outer = Outer(lr, momentum, self.momentum_P)
        weights_P = outer.step(self.weights_P, update_P)
        assert outer.momentum_P is not None
        return State(self.round + 1, weights_P, outer.momentum_P)

    def packed(self) -> Tensor:
        """Return weights and momentum in one vector of 2 P numbers, to be sent."""
        return torch.cat([self.weights_P, self.momentum_P])

    @classmethod
    def unpacked(cls, round_: int, both: Tensor) -> State:
        """Read what ``packed`` wrote."""
        weights_P, momentum_P = both.chunk(2)
        return cls(round_, weights_P.clone(), momentum_P.clone())
