"""The adapters that one pipeline's slots may wear on one worker: gains of its span, in memory only.

They are named by the primary's numbers. What a slot wears never changes: gains that are lent under a number
anew, or forgotten, stay for the slots that wear them, and their place is given to others afterwards. When the
pipeline closes, or its lease ends, they are gone.

*Covered*: more adapters than the pipeline's share of memory holds, gains of another span or width, NaN and
infinity, a body that is not what its hash says: each refused with a sentence, changing nothing. *Not
covered*: what a worker learns of a user from the gains that it computes with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import torch
from torch import Tensor

from sharedllm.engines.errors import BadStep
from sharedllm.wire import Adapter, Codec, decode

__all__ = ["Wardrobe"]

_MOST_NUMBER = (1 << 32) - 1  # what a segment can name


class Wardrobe:
    """At most ``budget_bytes`` of gains, a place for each; place 0 is the base's own, ``base_GD``."""

    def __init__(self, base_GD: Tensor, budget_bytes: int) -> None:
        self.base_GD, self.budget_bytes = base_GD, budget_bytes
        self.most = budget_bytes // (base_GD.numel() * 4)
        self._places: dict[int, int] = {0: 0}
        self._gains_UGD = base_GD[None]

    def place(self, number: int) -> int:
        """Where the gains of that number lie. Raises ``BadStep``."""
        try:
            return self._places[number]
        except KeyError:
            raise BadStep(
                f"Adapter {number} was not lent to this pipeline; lend it before it is worn."
            ) from None

    def gains(self, norm: int, places_R: Tensor) -> Tensor:
        """The gains of one norm for each of R rows: ``[R, D]``, one gather."""
        return self._gains_UGD[:, norm].index_select(0, places_R)

    def adopt(self, lent: Adapter, body: bytes | bytearray | memoryview, worn: Collection[int]) -> None:
        """Take gains, or forget those of a number; the places ``worn`` stay as they are.

        Raises ``BadFrame`` for a body of another length, ``BadStep`` for everything else that does not fit.
        """
        delta_GD = decode(body, Codec.FP32, 2 * lent.layers, lent.width)
        if not 0 < lent.number <= _MOST_NUMBER:
            raise BadStep(f"An adapter came with number {lent.number}; they go from 1 to {_MOST_NUMBER}.")
        if not lent.layers:
            self._places.pop(lent.number, None)
            return
        if delta_GD.shape != self.base_GD.shape:
            raise BadStep(
                f"Adapter {lent.number} is for {lent.layers} layers of width {lent.width}; this span has "
                f"{len(self.base_GD) // 2} of {self.base_GD.shape[1]}."
            )
        if hashlib.sha256(body).hexdigest() != lent.sha256:
            raise BadStep(f"Adapter {lent.number} is not what its hash says; send it again.")
        if not bool(delta_GD.isfinite().all()):
            raise BadStep(f"Adapter {lent.number} holds NaN or infinity; fit it again.")
        place = self._free(lent.number, worn)
        self._gains_UGD[place] = self.base_GD + delta_GD
        self._places[lent.number] = place

    def _free(self, number: int, worn: Collection[int]) -> int:
        """A place that nobody needs. Raises ``BadStep`` if there is none."""
        needed = {place for held, place in self._places.items() if held != number} | set(worn)
        free = next((place for place in range(1, self.most + 1) if place not in needed), None)
        if free is None:
            raise BadStep(
                f"This pipeline's share of memory here holds {self.most} adapters of "
                f"{self.base_GD.numel() * 4:,} bytes, and all are lent or worn; let one be forgotten first."
            )
        if len(self._gains_UGD) == 1:
            with torch.inference_mode(False):  # pages are taken as they are written to, not before
                gains_UGD = torch.empty(self.most + 1, *self.base_GD.shape)
            gains_UGD[0] = self.base_GD
            self._gains_UGD = gains_UGD
        return free
