"""What an embedding of fewer bits saves in bytes, and costs in bits per byte of held-out text.

Only the embedding is rounded, which is the head too where they are tied; all other weights are the model's
own. Ternary has one scale for each group of inputs, chosen for the least squared error.

*Covered*: rounding afterwards. *Not covered*: an embedding that was trained to be coarse; text of other
domains than the bases', and more than the first 2,000 bytes of a few documents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sharedllm import corpus, store
from sharedllm.store import Loaded
from sharedllm.store.ternary import SteppedTensor, TernaryTensor, ternarise, two_planes
from sharedllm.training import held_out, overall

__all__ = ["measure"]

_GROUP = 32
_BYTES = 2_000
_WINDOW = 512


def measure(quick: bool = False) -> list[str]:
    """Lines of a table: bytes, bits per number, and loss."""
    name, documents = ("toy", 1) if quick else ("smollm2-135m", 4)
    loaded = store.load(name)
    own = loaded.model.embed.weight.detach().clone()
    lines = [f"{name + ', embedding':24}{'bytes':>12}{'bits':>8}{'bits per byte':>15}{'more':>9}"]
    full = None
    for what, (n_bytes, rounded) in _forms(own).items():
        loss = _loss(loaded, rounded, documents)
        full = loss if full is None else full
        bits = 8 * n_bytes / own.numel()
        lines.append(f"{what:24}{n_bytes:12,}{bits:8.3f}{loss:15.4f}{loss - full:+9.4f}")
    _wear(loaded, own)
    return lines


def _forms(own: Tensor) -> dict[str, tuple[int, Tensor]]:
    int8 = SteppedTensor.of(own, bits=8)
    int4 = SteppedTensor.of(own, bits=4, group=_GROUP)
    planes = TernaryTensor.of(*two_planes(own, group=_GROUP))
    trits = TernaryTensor.of(ternarise(own, scale="optimal", group=_GROUP))
    rows = TernaryTensor.of(ternarise(own, scale="optimal"))
    return {
        "fp32": (own.nbytes, own),
        "int8, row": (int8.steps.nbytes + int8.scales.nbytes, int8.restored()),
        f"int4, group of {_GROUP}": (int4.steps.nbytes + int4.scales.nbytes, int4.restored()),
        f"two planes, {_GROUP}": (planes.trits.nbytes + planes.scales.nbytes, planes.restored()),
        f"ternary, group of {_GROUP}": (trits.trits.nbytes + trits.scales.nbytes, trits.restored()),
        "ternary, row": (rows.trits.nbytes + rows.scales.nbytes, rows.restored()),
    }


def _wear(loaded: Loaded, weight: Tensor) -> None:
    with torch.no_grad():
        loaded.model.embed.weight.copy_(weight)


def _loss(loaded: Loaded, weight: Tensor, documents: int) -> float:
    """Mean over the base domains of bits per byte."""
    _wear(loaded, weight)
    losses = []
    for name in corpus.BASE_DOMAINS:
        test = corpus.domain(name).test
        some = test[:: -(-len(test) // documents)]
        scored = held_out(loaded.model, loaded.tokenizer, some, window=_WINDOW, at_most_bytes=_BYTES)
        losses.append(overall(scored))
    return sum(losses) / len(losses)
