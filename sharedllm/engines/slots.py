"""The keys and values of many sequences, each in a slot of its own that grows with it.

A slot's number is chosen by the primary; here it is only a key. Positions are counted against a budget, so
that a pipeline never takes more memory than it was granted.

*Covered*: a step for a slot that does not exist, that skips or repeats positions, that would burst the
budget or the model's context; a fork from a slot that is too short; an adapter that was not lent, or that
comes when rows were computed without it; too many slots: each refused with a sentence before anything is
written. *Not covered*: eviction and admission (the primary decides both).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sharedllm.engines.errors import BadStep
from sharedllm.engines.wardrobe import Wardrobe
from sharedllm.model.config import Config
from sharedllm.wire import Op, Segment

__all__ = ["Slot", "Slots", "kv_bytes_per_token"]

_GROW = 64  # a slot's memory grows by so many positions at a time; see ``ragged`` for why not by fewer

_MOST = 4096  # slots of one pipeline: an empty one takes memory, too


def kv_bytes_per_token(config: Config, layers: int) -> int:
    """Bytes that one cached position takes in ``layers`` layers, in fp32."""
    return 2 * 4 * layers * config.kv_heads * config.head_width


class Slot:
    """One sequence's cache: ``kv`` is ``[layers, 2, K, capacity, C]``, of which ``length`` are valid.

    ``wears`` is the place of its adapter in the wardrobe.
    """

    def __init__(self, kv: Tensor, wears: int = 0) -> None:
        self.kv, self.length, self.wears = kv, 0, wears

    @property
    def capacity(self) -> int:
        """Positions that fit without growing."""
        return self.kv.shape[3]


class Slots:
    """All slots of one pipeline on one worker, for ``layers`` layers and at most ``budget`` positions."""

    def __init__(self, config: Config, layers: int, budget: int, wardrobe: Wardrobe) -> None:
        self._config, self._layers, self.budget, self.wardrobe = config, layers, budget, wardrobe
        self._slots: dict[int, Slot] = {}

    @property
    def used(self) -> int:
        """Positions for which memory is held."""
        return sum(slot.capacity for slot in self._slots.values())

    @property
    def size_bytes(self) -> int:
        """Bytes held."""
        return sum(slot.kv.numel() * slot.kv.element_size() for slot in self._slots.values())

    @property
    def worn(self) -> set[int]:
        """The places in the wardrobe that slots wear."""
        return {slot.wears for slot in self._slots.values()}

    def __getitem__(self, number: int) -> Slot:
        """The slot of that number. Raises ``BadStep``."""
        try:
            return self._slots[number]
        except KeyError:
            raise BadStep(f"Slot {number} is not in use here; the pipeline must be opened anew.") from None

    def apply(self, segment: Segment) -> None:
        """Carry out what moves no rows, or make room for rows. Raises ``BadStep``, changing nothing."""
        if segment.op is Op.FREE:
            self._slots.pop(segment.slot, None)
        elif segment.op is Op.ROLLBACK:
            self._roll_back(self[segment.slot], segment)
        elif segment.op is Op.FORK:
            self._fork(segment)
        elif segment.op is Op.WEAR:
            self._wear(segment)
        else:
            self._make_room(segment)

    def _roll_back(self, slot: Slot, segment: Segment) -> None:
        if segment.start > slot.length:
            raise BadStep(
                f"Slot {segment.slot} holds {slot.length} positions; {segment.start} can't go back."
            )
        slot.length -= segment.start

    def _fork(self, segment: Segment) -> None:
        source = self[segment.source]
        if segment.slot in self._slots or segment.start > source.length:
            raise BadStep(
                f"Slot {segment.slot} can't begin with {segment.start} positions of slot {segment.source}, "
                f"which holds {source.length}, or it is in use already."
            )
        fresh = self._grown(None, segment.start, segment.slot)
        fresh.wears = source.wears
        fresh.kv[:, :, :, : segment.start] = source.kv[:, :, :, : segment.start]
        fresh.length = segment.start
        self._slots[segment.slot] = fresh

    def _wear(self, segment: Segment) -> None:
        place, slot = self.wardrobe.place(segment.source), self._slots.get(segment.slot)
        if slot is not None and slot.length:
            raise BadStep(
                f"Slot {segment.slot} holds {slot.length} positions that were computed with other gains; "
                f"only an empty one can begin to wear adapter {segment.source}."
            )
        fresh = self._grown(slot, 0, segment.slot) if slot is None else slot
        fresh.wears = place
        self._slots[segment.slot] = fresh

    def _make_room(self, segment: Segment) -> None:
        slot = self._slots.get(segment.slot)
        length = slot.length if slot is not None else 0
        if segment.start != length:
            raise BadStep(
                f"Rows for slot {segment.slot} begin at position {segment.start}, but it holds {length}."
            )
        if slot is None or length + segment.rows > slot.capacity:
            self._slots[segment.slot] = self._grown(slot, length + segment.rows, segment.slot)

    def _grown(self, slot: Slot | None, length: int, number: int) -> Slot:
        """A slot with room for ``length``, holding what ``slot`` holds. Raises ``BadStep``."""
        config, held = self._config, slot.capacity if slot is not None else 0
        if length > config.context:
            raise BadStep(f"Slot {number} would hold {length} positions; the context is {config.context}.")
        if number not in self._slots and len(self._slots) >= _MOST:
            raise BadStep(f"{_MOST} slots are in use; free one before slot {number} is begun.")
        capacity = -(-length // _GROW) * _GROW
        if self.used - held + capacity > self.budget:
            raise BadStep(
                f"Slot {number} needs {capacity} positions; {self.used - held} of {self.budget} are taken."
            )
        with torch.inference_mode(False):
            kv = torch.zeros(self._layers, 2, config.kv_heads, capacity, config.head_width)
        grown = Slot(kv, slot.wears if slot is not None else 0)
        if slot is not None:
            grown.kv[:, :, :, : slot.length] = slot.kv[:, :, :, : slot.length]
            grown.length = slot.length
        return grown
