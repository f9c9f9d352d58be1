"""A span of the model at work: steps in, steps out, each row the same bits in any batch.

*Covered*: rows that are not numbers (whose fault: whoever computed them before), a step that does not fit the
caches (the pipeline is then opened anew), borders inside the span where an earlier pipeline rounded.
*Not covered*: where frames come from and go to (``server``), GPUs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from sharedllm import store
from sharedllm.engines.errors import BadStep
from sharedllm.engines.ragged import Ragged
from sharedllm.engines.slots import Slot, Slots, kv_bytes_per_token
from sharedllm.engines.ternary import opened_span
from sharedllm.engines.wardrobe import Wardrobe
from sharedllm.model import PackedProjection, Span, pack_weights, steady
from sharedllm.model.norm import RMSNorm
from sharedllm.store import Manifest, ternary
from sharedllm.wire import Adapter, Codec, Hop, Op, Segment, StepMeta, Want, decode, encode, rounded

__all__ = ["Stage", "Work", "layer_bytes"]


class Stage:
    """Layers ``[start, stop)``, packed for serving. Pipelines share one; each brings its ``Slots``.

    ``opened`` makes one of a model in the store.
    """

    def __init__(self, span: Span) -> None:
        began_s = time.perf_counter()
        self.weights_bytes = _held_bytes(span)
        self.config, self.start, self.stop = span.config, span.start, span.stop
        pack_weights(span)
        for gain in (weight for weight in span.parameters() if weight.dim() == 1):
            gain.data = gain.data.clone()  # a view would hold the whole mapped file in memory
        self._blocks = list(span.eval().blocks.values())
        gains = [module.weight.detach() for module in span.modules() if isinstance(module, RMSNorm)]
        self._gains_GD = torch.stack(gains).float()
        products = [m for m in self._blocks[0].modules() if isinstance(m, PackedProjection)]
        with torch.inference_mode():
            self.steady = all(map(steady, products))
        self.load_s = time.perf_counter() - began_s

    @classmethod
    def opened(cls, manifest: Manifest, start: int, stop: int) -> Stage:
        """Layers of a model in the store; the weights of a ternary one are never restored.

        Raises ``BadModelFile`` for a blob that is missing or damaged, ``ValueError`` for a range that the
        model does not have.
        """
        return cls(_opened(manifest, start, stop))

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of cache that one position takes here."""
        return kv_bytes_per_token(self.config, self.stop - self.start)

    def slots(self, budget_bytes: int, adapters_bytes: int = 0) -> Slots:
        """Empty slots for one pipeline that may take so much memory for caches, and so much for adapters."""
        wardrobe = Wardrobe(self._gains_GD, adapters_bytes)
        return Slots(self.config, self.stop - self.start, budget_bytes // self.kv_bytes_per_token, wardrobe)

    def run(
        self, h_RD: Tensor, segments: tuple[Segment, ...], slots: Slots, roundings: Mapping[int, Codec]
    ) -> tuple[Tensor, Tensor]:
        """Compute a step: ``h_RD → h_RD``, and every layer's output of rows wanted as TRACE, ``[·, D]``.

        Raises ``BadStep``; the caches are then of no use, for earlier segments may have acted.
        """
        owners = [segment for segment in segments if segment.op in (Op.ROWS, Op.CHUNK)]
        if sum(s.rows for s in owners) != len(h_RD) or not all(s.rows for s in owners):
            raise BadStep(f"{len(h_RD)} rows came for segments of {[s.rows for s in owners]} rows.")
        if len({segment.slot for segment in owners}) < len(owners):
            raise BadStep("A step holds two runs of rows for the same slot.")
        parts: list[tuple[Segment, Slot]] = []
        for segment in segments:
            _refuse_uncomputed(segment, parts)
            slots.apply(segment)
            if segment.op in (Op.ROWS, Op.CHUNK):
                slot = slots[segment.slot]
                parts.append((segment, slot))
                slot.length += segment.rows
        if not parts:
            return h_RD, h_RD[:0]
        place = Ragged(self.config, parts, self.start, slots.wardrobe)
        return self._through(h_RD, place, _traced(parts), roundings)

    def _through(
        self, h_RD: Tensor, place: Ragged, traced: list[int], roundings: Mapping[int, Codec]
    ) -> tuple[Tensor, Tensor]:
        h_BTD, traces = h_RD[None], []
        for layer, block in enumerate(self._blocks, self.start):
            if layer > self.start and layer in roundings:
                h_BTD = rounded(h_BTD[0], roundings[layer])[None]
            h_BTD = block(h_BTD, place, None, layer)
            if traced:
                traces.append(h_BTD[0, traced])
        return h_BTD[0], torch.cat(traces) if traces else h_RD[:0]


def layer_bytes(manifest: Manifest) -> int:
    """Bytes that the weights of one layer take in an engine; raises what ``Stage.opened`` raises."""
    return _held_bytes(_opened(manifest, 0, 1))


def _opened(manifest: Manifest, start: int, stop: int) -> Span:
    if manifest.dtype == ternary.DTYPE:
        return opened_span(manifest, start, stop)
    return store.opened_span(manifest, start, stop)


def _held_bytes(span: Span) -> int:
    packed = [m for m in span.modules() if isinstance(m, PackedProjection)]
    held = sum(weight.numel() * weight.element_size() for weight in (*span.parameters(), *span.buffers()))
    return held + sum(4 * m.inputs * m.outputs for m in packed)


class Work:
    """One pipeline's place at a stage: its caches, and the roundings that it began with.

    The ``last`` stage of a pipeline sends back only the rows that the primary wants.
    """

    def __init__(
        self,
        stage: Stage,
        budget_bytes: int,
        roundings: Mapping[int, Codec],
        last: bool,
        adapters_bytes: int = 0,
    ) -> None:
        self.stage, self.slots = stage, stage.slots(budget_bytes, adapters_bytes)
        self.roundings = dict(roundings)
        self.sends, self.last = self.roundings.get(stage.stop, Codec.FP32), last

    def adopt(self, lent: Adapter, body: bytes | bytearray | memoryview) -> None:
        """Take an adapter that slots may wear from now on. Raises ``BadFrame``, ``BadStep``."""
        self.slots.wardrobe.adopt(lent, body, self.slots.worn)

    def step(
        self, meta: StepMeta, body: bytes | bytearray | memoryview, wait_s: float, queued: int
    ) -> tuple[StepMeta, memoryview]:
        """Compute one step. Raises ``BadFrame``, ``BadStep``; ``ArithmeticError`` for NaN that came in."""
        began_s = time.perf_counter()
        if meta.width != self.stage.config.width:
            raise BadStep(f"Rows of {meta.width} numbers came; the model is {self.stage.config.width} wide.")
        whole = decode(body, meta.codec, meta.rows + meta.traced, meta.width)
        if not bool(whole.isfinite().all()):
            raise ArithmeticError("Hidden states that are not numbers came in.")
        with torch.inference_mode():
            h_RD, traces = self.stage.run(whole[: meta.rows], meta.segments, self.slots, self.roundings)
            if self.last:
                h_RD = h_RD[_wanted(meta.segments)]
            traces = torch.cat((whole[meta.rows :], traces)) if meta.traced else traces
            sent = encode(torch.cat((h_RD, traces)) if len(traces) else h_RD, self.sends)
        compute_us = round((time.perf_counter() - began_s) * 1e6)
        hop = Hop(self.stage.start, self.stage.stop, compute_us, round(wait_s * 1e6), queued)
        hops = (*meta.hops, hop)
        return StepMeta(meta.segments, self.sends, meta.width, len(h_RD), len(traces), hops), sent


def _refuse_uncomputed(segment: Segment, parts: list[tuple[Segment, Slot]]) -> None:
    """Raise ``BadStep`` for a fork of rows that this very step is still to compute."""
    for earlier, _ in parts:
        if segment.op is Op.FORK and segment.source == earlier.slot and segment.start > earlier.start:
            raise BadStep(f"Slot {segment.slot} would begin with rows that the same step computes.")


def _wanted(segments: tuple[Segment, ...]) -> list[int]:
    """Which rows of a step come back to the primary, in order."""
    rows: list[int] = []
    at = 0
    for segment in segments:
        if segment.op in (Op.ROWS, Op.CHUNK):
            at += segment.rows
            rows += range(at - segment.wanted, at)
    return rows


def _traced(parts: list[tuple[Segment, Slot]]) -> list[int]:
    """The rows whose every layer is wanted."""
    rows, at = [], 0
    for segment, _ in parts:
        at += segment.rows
        if segment.want is Want.TRACE:
            rows.append(at - 1)
    return rows
