"""How adapters are lent to a pipeline's workers, as the primary does it: each gets what acts in its layers.

*Covered*: gains that are missing, of another width, or no numbers; an answer that was not awaited. *Not
covered*: who may wear what (the primary's business).
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from sharedllm.errors import BadAdapter
from sharedllm.wire import Adapter, Adopted, BadFrame, Codec, Frame, Kind, encode

__all__ = ["Lending", "lent"]

Then = Callable[[], object]


def lent(number: int, delta: Mapping[str, Tensor] | None, start: int, stop: int, width: int) -> Frame:
    """The frame that lends layers ``[start, stop)`` of a norm adapter under a number.

    ``delta`` holds what the adapter adds to each gain, by the gain's name; None: what the number named is
    forgotten. Raises ``BadAdapter``.
    """
    if delta is None:
        return Frame(Kind.ADAPTER, meta=Adapter(number, "", 0, width).to_bytes())
    norms, gains = ("attention_norm", "feedforward_norm"), []
    for name in (f"blocks.{layer}.{norm}.weight" for layer in range(start, stop) for norm in norms):
        gain_D = delta.get(name)
        if gain_D is None or gain_D.shape != (width,) or not bool(gain_D.isfinite().all()):
            raise BadAdapter(
                f"An adapter can't be lent: its {name} is missing, no vector of {width} numbers, or holds "
                "NaN. Give a norm adapter that was fitted on this base."
            )
        gains.append(gain_D)
    body = encode(torch.stack(gains), Codec.FP32)
    meta = Adapter(number, hashlib.sha256(body).hexdigest(), stop - start, width).to_bytes()
    return Frame(Kind.ADAPTER, meta=meta, body=body)


@dataclasses.dataclass(frozen=True)
class _Awaited:
    """An adapter's number, who has not answered yet, what happens then, and since when."""

    number: int
    nodes: set[str]
    then: Then
    since_s: float


class Lending:
    """Adapters on their way to the workers of one pipeline, and who has not said that it has them."""

    def __init__(self) -> None:
        self._serials = itertools.count(1)
        self._awaited: dict[int, _Awaited] = {}
        self._changing = threading.Lock()

    def begin(self, number: int, nodes: Iterable[str], then: Then) -> int:
        """Await an answer of each node; return what the step of the frames must be."""
        with self._changing:
            serial = next(self._serials)
            self._awaited[serial] = _Awaited(number, set(nodes), then, time.monotonic())
        return serial

    def late(self, after_s: float) -> set[str]:
        """The nodes that have owed an answer for so long."""
        with self._changing:
            now_s = time.monotonic()
            overdue = [each.nodes for each in self._awaited.values() if now_s - each.since_s > after_s]
            return set().union(*overdue)

    def adopted(self, node: str, frame: Frame) -> Then | None:
        """Take a node's answer; return what is to happen if it was the last one awaited.

        Raises ``BadFrame`` for an answer that was not.
        """
        number = Adopted.from_bytes(frame.meta).number
        with self._changing:
            awaited = self._awaited.get(frame.step)
            if awaited is None or awaited.number != number or node not in awaited.nodes:
                raise BadFrame(f"It has taken adapter {number}, which it was not sent.")
            awaited.nodes.remove(node)
            if awaited.nodes:
                return None
            del self._awaited[frame.step]
        return awaited.then
