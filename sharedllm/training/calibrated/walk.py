"""Through all layers, front to back, each kept on disk when it is done, so that a killed walk goes on.

A layer takes seconds to a minute; a finished one is read back and only run, to have the inputs of the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from sharedllm.model import Block, Transformer
from sharedllm.model.attention import Place
from sharedllm.store import Progress, atomic
from sharedllm.store.ternary import TernaryTensor
from sharedllm.training.calibrated.layers import Streamed, copied, matrices, pieces, quantised_layer

__all__ = ["parts_of", "walk", "weights_of"]


@torch.no_grad()
def walk(
    model: Transformer,
    tokens_NT: Tensor,
    *,
    planes: int,
    group: int,
    kept: Path,
    progress: Progress | None = None,
) -> dict[str, TernaryTensor]:
    """Turn all matrices of a model into trits by what it makes of ``tokens_NT``, resuming from ``kept``.

    Raises ``BadRecipe`` for NaN on the way, ``WriteFailed``.
    """
    h_NTD = model.embed(tokens_NT)
    streamed = Streamed(h_NTD, h_NTD)
    place = Place.after(model.config, h_NTD[:1], None)
    found: dict[str, TernaryTensor] = {}
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        shapes = {name: tuple(weight.shape) for name, weight in matrices(block, layer)}
        path = kept / f"layer-{layer:03d}.safetensors"
        if path.is_file():
            here = weights_of(safetensors.torch.load(path.read_bytes()), shapes)
        else:
            here = quantised_layer(block, layer, streamed, place, planes=planes, group=group)
            atomic.write_bytes(path, safetensors.torch.save(parts_of(here)))
        found |= here
        ours = copied(block, {name: weight.restored() for name, weight in here.items()}, layer)
        parts = [(block(full, place, None, 0), ours(mine, place, None, 0)) for full, mine in pieces(streamed)]
        streamed = Streamed(torch.cat([full for full, _ in parts]), torch.cat([mine for _, mine in parts]))
        if progress is not None:
            progress("calibrating layers", layer + 1, model.config.layers)
    return found


def parts_of(weights: Mapping[str, TernaryTensor]) -> dict[str, Tensor]:
    """Give what a weight consists of under names of their own, to be written."""
    return {f"{name}.{part}": getattr(w, part) for name, w in weights.items() for part in ("trits", "scales")}


def weights_of(
    parts: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, TernaryTensor]:
    """Undo ``parts_of`` for weights of these names and shapes."""
    return {
        name: TernaryTensor(parts[f"{name}.trits"], parts[f"{name}.scales"], shape)
        for name, shape in shapes.items()
    }
