"""How the next token is chosen from logits: greedy, or by chance narrowed by temperature, top-k and top-p.

*Covered*: the same seed and logits give the same token, whatever else is in the batch; tokens outside of
top-k and top-p are never chosen. *Not covered*: logits that differ in their last bits (other batch sizes,
other machines) may tip a draw that lies on the edge between two tokens.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from sharedllm.errors import BadPrompt

__all__ = ["Sampling", "choose", "probabilities"]


_MOSTLY_ENOUGH = 512  # sorting so few takes a tenth of the 3 ms that a vocabulary of 49,152 takes


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to continue a prompt.

    ``temperature`` 0 takes the likeliest token; ``top_k`` keeps the k likeliest (0: all); ``top_p`` keeps the
    fewest likeliest whose mass reaches p (1: all). ``seed`` alone decides the draws. Ends after
    ``max_tokens`` or before any of ``stop``. Raises ``BadPrompt`` for a value out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    max_tokens: int = 128
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rules = {
            "temperature": (0 <= self.temperature < math.inf, "a number ≥ 0"),
            "top_k": (self.top_k >= 0, "≥ 0 (0 keeps all tokens)"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "max_tokens": (self.max_tokens >= 1, "≥ 1"),
            "stop": (isinstance(self.stop, tuple) and all(self.stop), "a tuple of non-empty strings"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise BadPrompt(
                    f"{name} is {getattr(self, name)!r}; expected {expected}. Correct the request."
                )

    def generator(self) -> torch.Generator:
        """A fresh source of chance for one row; two rows with the same seed draw alike."""
        return torch.Generator().manual_seed(self.seed)


def probabilities(logits_V: Tensor, sampling: Sampling) -> Tensor:
    """The distribution that is drawn from: temperature, then top-k, then top-p, renormalised.

    ``logits_V → p_V``, fp64, sums to 1. top-p: Holtzman et al., 1904.09751 §3.1. ``temperature`` must be > 0.
    """
    logits_V = logits_V.double()
    # scaled after subtracting the maximum, so that a temperature near 0 can't overflow
    logits_V = (logits_V - logits_V.max()) / sampling.temperature
    if 0 < sampling.top_k < len(logits_V):
        kept = logits_V.topk(sampling.top_k).indices
        narrowed_V = torch.full_like(logits_V, -torch.inf)
        logits_V = narrowed_V.index_copy(0, kept, logits_V[kept])
    p_V = torch.softmax(logits_V, dim=-1)
    if sampling.top_p < 1:
        likeliest, order = p_V.topk(min(_MOSTLY_ENOUGH, len(p_V)))
        if likeliest.sum() < sampling.top_p:
            likeliest, order = p_V.sort(descending=True)
        # the first token that brings the mass to top_p is the last that is kept
        kept = order[likeliest.cumsum(0) - likeliest < sampling.top_p]
        p_V = torch.zeros_like(p_V).index_copy(0, kept, p_V[kept] / p_V[kept].sum())
    return p_V


def choose(logits_V: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Choose the next token; draws one number from ``generator`` unless greedy."""
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    mass_V = probabilities(logits_V.cpu(), sampling).cumsum(0)
    draw = torch.rand(1, generator=generator, dtype=torch.float64) * mass_V[-1]
    # right=True: a token with no mass is never hit, not even by a draw of exactly 0
    return min(int(torch.searchsorted(mass_V, draw, right=True)), int(mass_V.argmax()))
