"""Full fine-tuning: every weight moves, and the adapter is the difference to the base, in fp16.

fp16 halves 538 MB to 269 MB on SmolLM2-135M; a difference is rounded by at most 2^-11 of itself or 3e-8,
which moves the loss by less than the difference of two runs (a test says how much). A fit's tensors are
rounded the same way whether they come from the file or from the fit. Bet b037.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sharedllm.adapters.twin import same_names, twin
from sharedllm.model.transformer import Transformer

__all__ = ["Full"]


class Full:
    """All weights of a twin, as parameters; see ``apply.Method`` for the calls."""

    def __init__(self, base: Transformer, seed: int, precision: str) -> None:
        self._base = dict(base.named_parameters())
        self.model = twin(base, self._base.keys(), precision)
        self.parameters: list[nn.Parameter] = list(self.model.parameters())

    def delta(self) -> dict[str, Tensor]:
        """Give weight − base weight per weight, fp16."""
        now = dict(self.model.named_parameters())
        return {
            name: (now[name].detach() - weight.detach()).to(torch.float16)
            for name, weight in self._base.items()
        }

    @staticmethod
    def weights(model: Transformer, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add each δ to its weight. Raises ``BadAdapter`` unless every weight of the model has one."""
        same_names("full", set(tensors), {name for name, _ in model.named_parameters()})
        return tensors
