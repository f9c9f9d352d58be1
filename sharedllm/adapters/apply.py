"""The table of methods, and how an adapter goes on a live model and comes off, leaving the base bit for bit.

A trained method is a class of one shape (``Method``). ``unigram`` trains nothing and is none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from torch import Tensor, nn

from sharedllm.adapters.file import Adapter
from sharedllm.adapters.full import Full
from sharedllm.adapters.lora import Lora
from sharedllm.adapters.norm import Norm, NormBias, shifted
from sharedllm.adapters.unigram import biased
from sharedllm.errors import BadAdapter
from sharedllm.model.transformer import Transformer

__all__ = ["METHODS", "TRAINED", "Method", "applied", "check_method"]


class Method(Protocol):
    """A twin of the base in which ``parameters`` are to be trained; the base itself stays as it is."""

    model: Transformer
    parameters: list[nn.Parameter]

    def __init__(self, base: Transformer, seed: int, precision: str) -> None: ...

    def delta(self) -> dict[str, Tensor]:
        """Read off the adapter's tensors: copies, which further training leaves alone."""

    @staticmethod
    def weights(model: Transformer, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Say what an adapter's tensors add to which weight. Raises ``BadAdapter`` where names don't fit."""


TRAINED: dict[str, type[Method]] = {"norm": Norm, "norm+bias": NormBias, "lora": Lora, "full": Full}
METHODS = (*TRAINED, "unigram")


def check_method(method: str) -> None:
    """Raise ``BadAdapter`` for a method that does not exist, listing those that do."""
    if method not in METHODS:
        raise BadAdapter(f"There is no adapter method {method!r}; expected one of: {', '.join(METHODS)}.")


@contextlib.contextmanager
def applied(model: Transformer, adapter: Adapter) -> Iterator[Transformer]:
    """Run the body with ``model`` adapted; afterwards, whatever happened, it is the base again, bit for bit.

    The base's tensors are set aside, never written to. Meanwhile every thread that uses the model gets the
    adapted one. Raises ``BadAdapter`` when the method, names or shapes do not fit the model, which is then as
    it was.
    """
    check_method(adapter.method)
    if adapter.method == "unigram":
        with biased(model, adapter.tensors):
            yield model
        return
    parameters = dict(model.named_parameters())
    deltas = TRAINED[adapter.method].weights(model, adapter.tensors)
    adapted = {name: _sum(name, parameters[name].data, delta) for name, delta in deltas.items()}
    base = {name: parameters[name].data for name in adapted}
    biases = shifted(model, adapter.tensors) if adapter.method == "norm+bias" else contextlib.nullcontext()
    try:
        with biases:
            for name, tensor in adapted.items():
                parameters[name].data = tensor
            yield model
    finally:
        for name, tensor in base.items():
            parameters[name].data = tensor


def _sum(name: str, weight: Tensor, delta: Tensor) -> Tensor:
    if delta.shape != weight.shape:
        raise BadAdapter(
            f"The adapter changes {name} by a tensor of shape {tuple(delta.shape)}, but the model's has "
            f"{tuple(weight.shape)}. Load the base that the adapter was fitted on."
        )
    return (weight.float() + delta.to(weight.device).float()).to(weight.dtype)
