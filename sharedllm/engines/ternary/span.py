"""Layers and head of a ternary model, read from its file into the form in which they are multiplied.

One weight at a time is unpacked, to bytes; none becomes fp32, unless the file holds it so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from sharedllm import store
from sharedllm.engines.ternary.products import projection
from sharedllm.engines.ternary.runs import Runs, joined, runs_of_each, runs_of_table
from sharedllm.model import Config, Span
from sharedllm.model.attention import Attention
from sharedllm.model.feedforward import MixtureOfExperts, SwiGLU
from sharedllm.model.projection import shared
from sharedllm.store.ternary import SteppedTensor, TernaryTensor

__all__ = ["opened_head", "opened_span"]

_TOGETHER = (("q", "k", "v"), ("o",), ("gate", "up"), ("down",))  # those of the same input
_STACKS = ("gate_EFD", "up_EFD", "down_EDF")


def opened_span(manifest: store.Manifest, start: int, stop: int) -> Span:
    """Layers ``[start, stop)`` of a ternary model, whose ternary matrices stay packed.

    Raises ``BadModelFile`` for a file that is missing, damaged or not the model's, ``ValueError`` for a range
    that the model does not have.
    """
    with torch.device("meta"):
        span = Span(manifest.config, start, stop)
    opened = store.opened_ternary(
        manifest, {name: tuple(weight.shape) for name, weight in span.state_dict().items()}
    )
    for name, module in list(span.named_modules()):
        if isinstance(module, Attention | SwiGLU):
            parts = {part: opened[f"{name}.{part}.weight"] for part, _ in module.named_children()}
            _fill(
                module,
                {part: runs_of_each(w)[0] for part, w in parts.items() if isinstance(w, TernaryTensor)},
            )
        elif isinstance(module, MixtureOfExperts):
            stacks = [opened[f"{name}.{stack}"] for stack in _STACKS]
            kept = [runs_of_each(stack) for stack in stacks if isinstance(stack, TernaryTensor)]
            if len(kept) == len(_STACKS):
                module.replace([_expert(manifest.config, each) for each in zip(*kept, strict=True)])
    span.load_state_dict({name: opened.restored(name) for name in span.state_dict()}, assign=True)
    return span.eval()


def opened_head(manifest: store.Manifest) -> nn.Module | None:
    """The head of a ternary model as the int8 table that it is; None if it is kept as something else.

    Raises ``BadModelFile`` as ``opened_span`` does.
    """
    config = manifest.config
    name = "embed.weight" if config.tied_head else "head.weight"
    table = store.opened_ternary(manifest, {name: (config.vocab_size, config.width)})[name]
    if isinstance(table, SteppedTensor) and table.bits == 8 and table.scales.shape[-1] == 1:
        return projection(runs_of_table(table))
    return None


def _expert(config: Config, runs: Sequence[Runs]) -> SwiGLU:
    with torch.device("meta"):
        expert = SwiGLU(config)
    _fill(expert, dict(zip(("gate", "up", "down"), runs, strict=True)))
    return expert


def _fill(module: nn.Module, parts: Mapping[str, Runs]) -> None:
    """Put products by runs in the places of their names: one product where the same input allows it."""
    for names in _TOGETHER:
        runs = [parts[name] for name in names if name in parts]
        if len(runs) == len(names) and len({each.layout for each in runs}) == 1:
            for name, part in zip(
                names, shared(projection(joined(runs)), [each.outputs for each in runs]), strict=True
            ):
                setattr(module, name, part)
        else:
            for name in names:
                if name in parts:
                    setattr(module, name, projection(parts[name]))
