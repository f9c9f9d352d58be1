"""Attention for rows of many sequences at once: each row goes to its own sequence's cache.

The rows of a step lie end to end as if they were one sequence of one batch, which is all that norms and
matrix products care about. Only attention must know where each belongs. A CHUNK attends in one product; each
of ROWS attends alone, exactly as if it were decoded alone. Both depend on their own sequence only, and matrix
products are steady (``model.PackedProjection``), so a token has the same bits in any company, with any number
of threads. A chunk of one row is attended to alone, too. The gains that a row's slot wears are gathered for
each norm; where nobody wears any, nothing is.

The products inside PyTorch's attention add in an order that depends on where their operands lie in memory, to
64 bytes. So queries are copied to a place of their own, a chunk is padded until the workspaces of all threads
lie alike, and slots grow by 64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sharedllm.engines.slots import Slot
from sharedllm.engines.wardrobe import Wardrobe
from sharedllm.model.attention import Place, turns_at
from sharedllm.model.cache import Cache
from sharedllm.model.config import Config
from sharedllm.wire import Op, Segment

__all__ = ["Ragged"]

_ALIGNED = 16  # rows of fp32 numbers of any width that fill whole blocks of 64 bytes


class Ragged(Place):
    """Where each row of a step stands: the segments that own rows, with their slots, in order."""

    def __init__(
        self, config: Config, parts: Sequence[tuple[Segment, Slot]], first_layer: int, wardrobe: Wardrobe
    ) -> None:
        positions = torch.cat([torch.arange(s.start, s.start + s.rows) for s, _ in parts])
        cos, sin = turns_at(config, positions)
        stop = int(positions.max()) + 1
        super().__init__(cos, sin, None, positions, stop, None, _gains(parts, first_layer, wardrobe))
        object.__setattr__(self, "_first", first_layer)
        object.__setattr__(self, "_parts", [(segment, slot, _mask(segment)) for segment, slot in parts])

    _first: int
    _parts: list[tuple[Segment, Slot, Tensor | None]]

    def attend(
        self, q_BHTC: Tensor, k_BKTC: Tensor, v_BKTC: Tensor, cache: Cache | None, layer: int
    ) -> Tensor:
        """Cache every row's key and value in its slot, and attend there: ``[1, H, R, C]``."""
        out_BHTC = torch.empty_like(q_BHTC)
        at = 0
        for segment, slot, mask in self._parts:
            rows = slice(at, at + segment.rows)
            keys_KSC, values_KSC = slot.kv[layer - self._first]
            written = slice(segment.start, segment.start + segment.rows)
            keys_KSC[:, written], values_KSC[:, written] = k_BKTC[0, :, rows], v_BKTC[0, :, rows]
            if segment.op is Op.CHUNK and segment.rows > 1:
                keys, values = keys_KSC[None, :, : written.stop], values_KSC[None, :, : written.stop]
                out_BHTC[:, :, rows] = _together(q_BHTC[:, :, rows], keys, values, mask)
            else:
                self._each_alone(out_BHTC, q_BHTC, at, segment, keys_KSC, values_KSC)
            at = rows.stop
        return out_BHTC

    def _each_alone(
        self, out: Tensor, q: Tensor, at: int, segment: Segment, keys_KSC: Tensor, values_KSC: Tensor
    ) -> None:
        """Attention of rows one by one, on one thread: on several PyTorch splits it, and adds otherwise."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for i in range(segment.rows):
                seen = slice(0, segment.start + i + 1)
                out[0, :, at + i] = _alone(q[0, :, at + i], keys_KSC[:, seen], values_KSC[:, seen])
        finally:
            torch.set_num_threads(threads)


def _gains(
    parts: Sequence[tuple[Segment, Slot]], first_layer: int, wardrobe: Wardrobe
) -> Callable[[int, int], Tensor] | None:
    """What each row wears, by layer and norm; None where all wear the base's own."""
    if not any(slot.wears for _, slot in parts):
        return None
    places_R = torch.tensor([slot.wears for segment, slot in parts for _ in range(segment.rows)])
    return lambda layer, which: wardrobe.gains(2 * (layer - first_layer) + which, places_R)


def _together(q_BHTC: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of a whole chunk."""
    rows = q_BHTC.shape[2]
    padded = F.pad(q_BHTC, (0, 0, 0, -rows % _ALIGNED)).contiguous()
    grouped = q_BHTC.shape[1] != keys.shape[1]
    return F.scaled_dot_product_attention(
        padded, keys, values, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
    )[:, :, :rows]


def _alone(q_HC: Tensor, keys_KSC: Tensor, values_KSC: Tensor) -> Tensor:
    """Attention of one row."""
    grouped = len(q_HC) != len(keys_KSC)
    q_HC = q_HC.clone(memory_format=torch.contiguous_format)
    q, k, v = q_HC[None, :, None], keys_KSC[None], values_KSC[None]
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=grouped)[0, :, 0]


def _mask(segment: Segment) -> Tensor | None:
    """Which positions each row of a padded chunk may look at; None where plain causality says it all."""
    if segment.op is not Op.CHUNK or segment.start == 0:
        return None
    stop = segment.start + segment.rows
    padded = stop + -segment.rows % _ALIGNED
    hidden = torch.arange(stop) > torch.arange(segment.start, padded)[:, None]
    return torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
