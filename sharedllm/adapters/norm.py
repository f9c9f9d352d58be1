"""Norm-only: tune the gain of every RMSNorm and nothing else (2,304 numbers on the 30m model, 35,136 on
SmolLM2-135M); and norm+bias, which also adds a vector β to every norm's output (twice the numbers).

A gain scales the inputs of the projections behind it, so no forward pass gets longer and a batch of users is
one gather of gains; β is what a bias in those projections would be, seen from their input, and starts at
zero. δ = γ_adapted − γ_base. Source: Zhao et al. 2312.11420 (LayerNorm tuning); bets b037 and b046.

A gain that is ``blocks.0.attention_norm.weight`` has its bias in ``blocks.0.attention_norm.bias``.
*Not covered*: serving norm+bias over the network, where workers take gains alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from sharedllm.adapters.twin import same_names, twin
from sharedllm.errors import BadAdapter
from sharedllm.model.transformer import Transformer

__all__ = ["Norm", "NormBias", "shifted"]

_GAIN, _BIAS = ".weight", ".bias"


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


class NormBias:
    """The gains of a twin and a β behind each, as parameters; see ``apply.Method`` for the calls."""

    def __init__(self, base: Transformer, seed: int, precision: str) -> None:
        self._norm = Norm(base, seed, precision)
        self.model = self._norm.model
        self._biases = {
            _bias(name): nn.Parameter(torch.zeros_like(gain)) for name, gain in self.model.gains().items()
        }
        _add(self.model, self._biases)
        self.parameters: list[nn.Parameter] = [*self._norm.parameters, *self._biases.values()]

    def delta(self) -> dict[str, Tensor]:
        """Give γ − γ_base per gain and β per norm, fp32."""
        biases = {name: bias.detach().clone() for name, bias in self._biases.items()}
        return self._norm.delta() | biases

    @staticmethod
    def weights(model: Transformer, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add each δ to its gain; ``shifted`` adds the rest.

        Raises ``BadAdapter`` unless every norm of the model has both.
        """
        gains = model.gains()
        same_names("norm+bias", set(tensors), {*gains, *map(_bias, gains)})
        return {name: tensors[name] for name in gains}


@contextlib.contextmanager
def shifted(model: Transformer, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Add each β among an adapter's tensors to its norm's output inside the body.

    Raises ``BadAdapter`` for a β of another shape; the model is then as it was.
    """
    gains = model.gains()
    biases = {_bias(name): tensors[_bias(name)] for name in gains}
    for name, gain in gains.items():
        if biases[_bias(name)].shape != gain.shape:
            raise BadAdapter(
                f"The adapter adds a tensor of shape {tuple(biases[_bias(name)].shape)} behind "
                f"{name.removesuffix(_GAIN)}, which gives {tuple(gain.shape)}. Load the base that it was "
                "fitted on."
            )
    handles = _add(model, biases)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _bias(gain: str) -> str:
    return gain.removesuffix(_GAIN) + _BIAS


def _add(model: Transformer, biases: Mapping[str, Tensor]) -> list[torch.utils.hooks.RemovableHandle]:
    handles = []
    for name, bias in biases.items():

        def add(module: nn.Module, given: object, out: Tensor, bias: Tensor = bias) -> Tensor:
            return out + bias.to(out)

        handles.append(model.get_submodule(name.removesuffix(_BIAS)).register_forward_hook(add))
    return handles
