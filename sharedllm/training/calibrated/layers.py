"""One layer at a time, from inputs as the layers before it give them once they are trits.

Each matrix is fitted to what the *full-precision* model computes at its place: those that read a norm to
their own outputs there, those that end a branch (o, down) to the residual stream behind it, so that a layer
makes good what earlier ones spoiled (the asymmetry of Li et al., "GPTAQ", 2504.02692 §3, taken to the
stream). By least squares that moves the weights to ``W + (Y − W X̂) X̂ᵀ (X̂ X̂ᵀ)⁻¹``, damped; ``feedback``
then finds trits.

*Covered*: dense layers and mixtures of experts (an expert sees the inputs that are sent to it; one that gets
none is rounded). *Not covered*: routers, gains and embeddings, which keep their numbers.

Shapes: N windows of T tokens, M rows of a piece.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharedllm.model import Block
from sharedllm.model.attention import Place
from sharedllm.model.feedforward import MixtureOfExperts
from sharedllm.store.ternary import TernaryTensor, is_hidden
from sharedllm.training.calibrated.feedback import Matrix, damped, fed_back, group_of

__all__ = ["Streamed", "copied", "matrices", "pieces", "quantised_layer"]

_WINDOWS_AT_ONCE = 8


@dataclass(frozen=True)
class Streamed:
    """The residual stream before a layer: of the full model, and behind layers that are trits already."""

    full_NTD: Tensor
    ours_NTD: Tensor


@dataclass
class _Seen:
    """Second moments of a matrix's inputs, ``X̂ᵀX̂``, and their products with what it should give, ``YᵀX̂``."""

    gram_II: Tensor
    cross_YI: Tensor
    count: int = 0

    @classmethod
    def of(cls, outputs: int, inputs: int) -> _Seen:
        return cls(torch.zeros(inputs, inputs), torch.zeros(outputs, inputs))

    def add(self, x_MI: Tensor, y_MY: Tensor) -> None:
        self.gram_II.addmm_(x_MI.T, x_MI)
        self.cross_YI.addmm_(y_MY.T, x_MI)
        self.count += len(x_MI)


def matrices(block: nn.Module, layer: int) -> Iterator[tuple[str, Tensor]]:
    """Name the matrices of a layer that become trits, in the order of the model's parameters."""
    for name, weight in block.named_parameters():
        if is_hidden(f"blocks.{layer}.{name}"):
            yield f"blocks.{layer}.{name}", weight


def copied(block: Block, weights: Mapping[str, Tensor], layer: int) -> Block:
    """A layer of these weights, and of its own where none is given; shares memory."""
    with torch.device("meta"):
        same = Block(block.attention.config)
    given = {name: weights.get(f"blocks.{layer}.{name}", w.detach()) for name, w in block.named_parameters()}
    same.load_state_dict(given, assign=True)
    return same.requires_grad_(False).eval()


@torch.no_grad()
def quantised_layer(
    block: Block, layer: int, streamed: Streamed, place: Place, *, planes: int, group: int
) -> dict[str, TernaryTensor]:
    """Turn a layer's matrices into trits, by name; experts stay stacked. The layer stays as it is."""
    ours = copied(block, {}, layer)
    fit = _Fit(planes, group)
    found = _attention(block, ours, streamed, place, fit)
    found |= _feedforward(block, ours, streamed, place, fit)
    return {f"blocks.{layer}.{name}": _packed(each) for name, each in found.items()}


@dataclass(frozen=True)
class _Fit:
    planes: int
    group: int

    def __call__(self, weight_OI: Tensor, seen: _Seen) -> Matrix:
        """Move a matrix to what least squares asks of it, and find trits for that."""
        h_II = damped(seen.gram_II, seen.count)
        short_OI = (seen.cross_YI - weight_OI @ seen.gram_II) / max(seen.count, 1)
        moved_OI = weight_OI + torch.linalg.solve(h_II, short_OI.T).T
        group = group_of(weight_OI.shape[1], self.group)
        return fed_back(moved_OI.contiguous(), h_II, planes=self.planes, group=group)


def _attention(
    block: Block, ours: Block, streamed: Streamed, place: Place, fit: _Fit
) -> dict[str, list[Matrix]]:
    width, found = streamed.full_NTD.shape[-1], {}
    seen = _Seen.of(width, width)
    for full, mine in pieces(streamed):
        seen.add(block.attention_norm(mine).flatten(0, 1), block.attention_norm(full).flatten(0, 1))
    weights = [block.attention.get_parameter(f"{name}.weight").detach() for name in "qkv"]
    joint_OI = torch.cat(weights)
    joint = fit(joint_OI, dataclasses.replace(seen, cross_YI=joint_OI @ seen.cross_YI))
    start = 0
    for name, weight in zip("qkv", weights, strict=True):
        matrix = joint.rows(start, start + len(weight))
        start += len(weight)
        found[f"attention.{name}.weight"] = [matrix]
        _put(ours.attention.get_parameter(f"{name}.weight"), matrix)
    o_DX = block.attention.get_parameter("o.weight").detach()
    seen = _Seen.of(*o_DX.shape)
    for full, mine in pieces(streamed):
        wanted = full + block.attention(block.attention_norm(full), place, None, 0) - mine
        inner = _before(
            ours.attention.o, lambda mine=mine: ours.attention(ours.attention_norm(mine), place, None, 0)
        )
        seen.add(inner.flatten(0, 1), wanted.flatten(0, 1))
    found["attention.o.weight"] = [fit(o_DX, seen)]
    _put(ours.attention.get_parameter("o.weight"), found["attention.o.weight"][0])
    return found


def _feedforward(
    block: Block, ours: Block, streamed: Streamed, place: Place, fit: _Fit
) -> dict[str, list[Matrix]]:
    middle = [
        (
            full + block.attention(block.attention_norm(full), place, None, 0),
            mine + ours.attention(ours.attention_norm(mine), place, None, 0),
        )
        for full, mine in pieces(streamed)
    ]
    experts = _experts(block.feedforward)
    seen_E = [_Seen.of(gate.shape[1], gate.shape[1]) for gate, _, _ in experts]
    for full, mine in middle:
        x_MD, y_MD = (ours.feedforward_norm(h).flatten(0, 1) for h in (mine, full))
        for (index_M, _), seen in zip(_routed(block.feedforward, x_MD), seen_E, strict=True):
            seen.add(x_MD[index_M], y_MD[index_M])
    first_E: list[tuple[Matrix, Matrix]] = []
    for (gate, up, _), seen in zip(experts, seen_E, strict=True):
        joint_FD = torch.cat([gate, up])
        joint = fit(joint_FD, dataclasses.replace(seen, cross_YI=joint_FD @ seen.cross_YI))
        first_E.append((joint.rows(0, len(gate)), joint.rows(len(gate), len(joint_FD))))
    seen_E = [_Seen.of(*down.shape) for _, _, down in experts]
    for full, mine in middle:
        wanted_MD = (full + block.feedforward(block.feedforward_norm(full)) - mine).flatten(0, 1)
        x_MD = ours.feedforward_norm(mine).flatten(0, 1)
        routes = _routed(block.feedforward, x_MD)
        for (index_M, p_M), (gate_m, up_m), seen in zip(routes, first_E, seen_E, strict=True):
            rows = x_MD[index_M]
            inner = F.silu(rows @ gate_m.restored().T) * (rows @ up_m.restored().T)
            seen.add(inner * p_M[:, None], wanted_MD[index_M])
    last_E = [fit(down, seen) for (_, _, down), seen in zip(experts, seen_E, strict=True)]
    gates, ups = [gate for gate, _ in first_E], [up for _, up in first_E]
    names = [name for name, weight in block.feedforward.named_parameters() if "router" not in name]
    return {f"feedforward.{name}": found for name, found in zip(names, (gates, ups, last_E), strict=True)}


def _packed(experts: list[Matrix]) -> TernaryTensor:
    """One weight of a dense layer, or the stack of all experts'."""
    trits, scales = (
        torch.stack(each, 1) for each in zip(*((m.trits_POI, m.scales_POG) for m in experts), strict=True)
    )
    if len(experts) == 1:
        trits, scales = trits[:, 0], scales[:, 0]
    return TernaryTensor.of(*zip(trits, scales, strict=True))


def pieces(streamed: Streamed) -> Iterator[tuple[Tensor, Tensor]]:
    split = (torch.split(h, _WINDOWS_AT_ONCE) for h in (streamed.full_NTD, streamed.ours_NTD))
    return zip(*split, strict=True)


def _experts(feedforward: nn.Module) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Gate, up and down of each expert, or of the one that a dense layer is."""
    weights = [w.detach() for name, w in feedforward.named_parameters() if "router" not in name]
    if isinstance(feedforward, MixtureOfExperts):
        return list(zip(*(w.unbind() for w in weights), strict=True))
    gate, up, down = weights
    return [(gate, up, down)]


def _routed(feedforward: nn.Module, x_MD: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Say for each expert which rows it gets, and with what weight."""
    if not isinstance(feedforward, MixtureOfExperts):
        return [(torch.arange(len(x_MD)), torch.ones(len(x_MD)))]
    p_M, expert_M = torch.softmax(feedforward.router(x_MD), -1).max(-1)
    chosen = [(expert_M == e).nonzero()[:, 0] for e in range(len(feedforward.gate_EFD))]
    return [(index_M, p_M[index_M]) for index_M in chosen]


def _before(module: nn.Module, run: object) -> Tensor:
    """Run something and give what ``module`` was called with meanwhile."""
    kept: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    try:
        run()  # type: ignore[operator]
    finally:
        handle.remove()
    return kept[0]


def _put(parameter: nn.Parameter, matrix: Matrix) -> None:
    parameter.data = matrix.restored()
