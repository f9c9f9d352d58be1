"""Small random models at work: a chain of stages in this process, without sockets."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sharedllm.engines import Stage, Work, lent
from sharedllm.model import Config, Transformer
from sharedllm.wire import Adapter, Codec, Segment, StepMeta, decode, encode

CONFIGS = {
    "dense": Config(
        vocab_size=90, width=48, layers=4, heads=6, kv_heads=2, head_width=8, hidden=64, context=200
    ),
    "moe": Config(
        vocab_size=90,
        width=40,
        layers=4,
        heads=5,
        kv_heads=5,
        head_width=8,
        hidden=24,
        experts=4,
        context=200,
    ),
    "odd": Config(
        vocab_size=90,
        width=67,
        layers=4,
        heads=3,
        kv_heads=1,
        head_width=10,
        hidden=51,
        context=200,
        tied_head=False,
    ),
}
AMPLE_BYTES = 64 << 20


def toy(kind: str, seed: int = 0) -> Transformer:
    """A model whose gains and embedding are far from their starting point, so that each of them matters."""
    torch.manual_seed(seed)
    model = Transformer(CONFIGS[kind]).eval().requires_grad_(False)
    model.embed.weight.mul_(20)
    for gain in model.gains().values():
        gain.uniform_(0.5, 1.5)
    return model


def delta(kind: str, number: int) -> dict[str, Tensor]:
    """A norm adapter of that kind's toy: as far from the base as its gains are from each other."""
    drawn = torch.Generator().manual_seed(number)
    return {name: torch.rand(gain.shape, generator=drawn) - 0.5 for name, gain in toy(kind).gains().items()}


def adapted(kind: str, number: int) -> Transformer:
    """The toy of that kind whose own gains are those of an adapter; of number 0, the toy."""
    model, added = toy(kind), delta(kind, number)
    for name, gain in model.gains().items():
        gain.add_(added[name] if number else 0.0)
    return model


def stage(model: Transformer, start: int, stop: int) -> Stage:
    """Layers of ``model`` for serving; the model itself stays as it is."""
    return Stage(copy.deepcopy(model).span(start, stop))


class Chain:
    """One pipeline over the stages ``borders[0]–borders[1]–…``, every hop through real bytes."""

    def __init__(
        self,
        stages: Sequence[Stage],
        roundings: Mapping[int, Codec] | None = None,
        budget_bytes: int = AMPLE_BYTES,
    ) -> None:
        self.roundings = roundings or {}
        last = stages[-1]
        self.works = [Work(each, budget_bytes, self.roundings, each is last, AMPLE_BYTES) for each in stages]

    def lend(self, number: int, delta: Mapping[str, Tensor] | None) -> None:
        """Lend an adapter to every stage, or let each forget the number."""
        for work in self.works:
            stage = work.stage
            frame = lent(number, delta, stage.start, stage.stop, stage.config.width)
            work.adopt(Adapter.from_bytes(frame.meta), bytes(frame.body))

    def step(self, h_RD: Tensor, *segments: Segment) -> Tensor:
        """Send rows through all stages; return those that come back."""
        return self.traced(h_RD, *segments)[0]

    def traced(self, h_RD: Tensor, *segments: Segment) -> tuple[Tensor, Tensor]:
        """The rows that come back, and the traced ones."""
        codec = self.roundings.get(0, Codec.FP32)
        meta = StepMeta(segments, codec, h_RD.shape[1], len(h_RD))
        body: bytes | memoryview = encode(h_RD, codec)
        for work in self.works:
            meta, body = work.step(StepMeta.from_bytes(meta.to_bytes()), bytes(body), 0.0, 0)
        whole = decode(body, meta.codec, meta.rows + meta.traced, meta.width)
        return whole[: meta.rows], whole[meta.rows :]
