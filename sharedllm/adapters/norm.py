"""Norm-only: tune the gain of every RMSNorm and nothing else (2,304 numbers on the 30m model, 35,136 on
SmolLM2-135M).

A gain scales the inputs of the projections behind it, so no forward pass gets longer and a batch of users is
one gather of gains. δ = γ_adapted − γ_base. Source: Zhao et al. 2312.11420 (LayerNorm tuning); bet b037.
"""

from __future__ import annotations

from torch import Tensor, nn

from sharedllm.adapters.twin import same_names, twin
from sharedllm.model.transformer import Transformer

__all__ = ["Norm"]


class Norm:
    """The gains of a twin, as parameters; see ``apply.Method`` for the calls."""

    def __init__(self, base: Transformer, seed: int, precision: str) -> None:
        self._base = base.gains()
        self.model = twin(base, self._base.keys(), precision)
        self.parameters: list[nn.Parameter] = list(self.model.gains().values())

    def delta(self) -> dict[str, Tensor]:
        """Give γ − γ_base per gain, fp32."""
        gains = self.model.gains()
        return {name: gains[name].detach() - gain.detach().float() for name, gain in self._base.items()}

    @staticmethod
    def weights(model: Transformer, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add each δ to its gain. Raises ``BadAdapter`` unless every gain of the model has one."""
        same_names("norm", set(tensors), set(model.gains()))
        return tensors
