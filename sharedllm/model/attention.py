"""Causal attention with grouped heads and rotary positions, over a cache or without one.

``Place`` says where the tokens of one forward stand. It is worked out once and shared by all layers, because
everything in it is the same for each of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharedllm.model.cache import Cache
from sharedllm.model.config import Config
from sharedllm.model.projection import Projection, join, pack, project_all

__all__ = ["Attention", "Place", "turns_at"]


@dataclass(frozen=True)
class Place:
    """Where T new tokens stand after what each row has cached.

    ``cos``, ``sin``: the turns for these positions, ``[T, C]``, or ``[B, 1, T, C]`` when rows differ.
    ``start``: the common first position, or None when rows differ; then ``positions`` ``[B, T]`` says
    where each token is written. ``stop``: one past the last position. ``mask``: additive, ``[T, S]`` or
    ``[B, 1, T, S]``; None where plain causality says it all. ``gains``: given a layer and which of its norms
    (0 before attention, 1 before feed-forward), a vector per row that stands in for the model's own gain;
    None where no row has any.
    """

    cos: Tensor
    sin: Tensor
    start: int | None
    positions: Tensor | None
    stop: int
    mask: Tensor | None
    gains: Callable[[int, int], Tensor] | None = None

    @classmethod
    def after(cls, config: Config, h_BTD: Tensor, cache: Cache | None) -> Place:
        """Work out the place of ``h_BTD`` behind ``cache`` (None: at the beginning)."""
        T = h_BTD.shape[1]
        lengths = cache.lengths if cache is not None else [0]
        first, stop = lengths[0], max(lengths) + T
        cos, sin = _turns(config.head_width, config.rope_base, _room(stop), h_BTD.dtype, h_BTD.device)
        if all(length == first for length in lengths):
            mask = None
            if first > 0 and T > 1:
                position_T = torch.arange(first, stop, device=h_BTD.device)
                mask = _mask(position_T, stop, h_BTD.dtype)
            return cls(cos[first:stop], sin[first:stop], first, None, stop, mask)
        start_B1 = torch.tensor(lengths, device=h_BTD.device)[:, None]
        position_BT = start_B1 + torch.arange(T, device=h_BTD.device)
        mask = _mask(position_BT, stop, h_BTD.dtype)[:, None]
        return cls(cos[position_BT][:, None], sin[position_BT][:, None], None, position_BT, stop, mask)

    def attend(
        self, q_BHTC: Tensor, k_BKTC: Tensor, v_BKTC: Tensor, cache: Cache | None, layer: int
    ) -> Tensor:
        """Attend to what is cached and to these tokens, which are cached if there is a cache."""
        k_BKSC, v_BKSC = k_BKTC, v_BKTC
        if cache is not None:
            k_BKSC = _written(cache.keys[layer - cache.start], k_BKTC, self)
            v_BKSC = _written(cache.values[layer - cache.start], v_BKTC, self)
        return F.scaled_dot_product_attention(
            q_BHTC,
            k_BKSC,
            v_BKSC,
            attn_mask=self.mask,
            is_causal=self.mask is None and q_BHTC.shape[2] > 1,
            enable_gqa=q_BHTC.shape[1] != k_BKTC.shape[1],
        )


class Attention(nn.Module):
    """Attend to all earlier positions; ``H / K`` query heads share a key/value head.

    ``h_BTD → h_BTD``. Vaswani et al., 1706.03762 §3.2; grouped heads 2305.13245 §2.2; rotary positions
    2104.09864 §3.4, pairing number i of a head with number i + C/2 as Hugging Face's Llama does.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        inner, shared = config.heads * config.head_width, config.kv_heads * config.head_width
        self.q: nn.Module = Projection(config.width, inner)
        self.k: nn.Module = Projection(config.width, shared)
        self.v: nn.Module = Projection(config.width, shared)
        self.o: nn.Module = Projection(inner, config.width)

    def join(self) -> None:
        """Lay q, k and v end to end, so that decoding reads them in one product."""
        join(self.q, self.k, self.v)

    def pack(self) -> None:
        """Serve from now on: see ``PackedProjection``."""
        self.q, self.k, self.v = pack(self.q, self.k, self.v)
        (self.o,) = pack(self.o)

    def forward(self, h_BTD: Tensor, place: Place, cache: Cache | None, layer: int) -> Tensor:
        """Attend, writing keys and values into ``cache`` as ``layer`` if there is one."""
        B, T, _ = h_BTD.shape
        C = self.config.head_width
        q, k, v = (x.view(B, T, -1, C).transpose(1, 2) for x in project_all(h_BTD, self.q, self.k, self.v))
        out_BHTC = place.attend(_turn(q, place), _turn(k, place), v, cache, layer)
        out_BTD: Tensor = self.o(out_BHTC.transpose(1, 2).reshape(B, T, -1))
        return out_BTD


def turns_at(config: Config, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The turns (cos, and sin with its sign) for tokens at any ``positions`` ``[T]``: ``[T, C]`` each."""
    room = _room(int(positions.max()) + 1)
    cos, sin = _turns(config.head_width, config.rope_base, room, torch.float32, positions.device)
    return cos[positions], sin[positions]


def _turn(x_BHTC: Tensor, place: Place) -> Tensor:
    """Rotate each pair (i, i + C/2) by its position's angle; the sign is already in ``place.sin``."""
    return torch.addcmul(x_BHTC * place.cos, x_BHTC.roll(x_BHTC.shape[-1] // 2, -1), place.sin)


def _written(store_BKSC: Tensor, new_BKTC: Tensor, place: Place) -> Tensor:
    """Write new keys or values in place; return all that may be attended to, as a view."""
    if place.positions is None:
        store_BKSC[:, :, place.start : place.stop] = new_BKTC
    else:
        index = place.positions[:, None, :, None].expand_as(new_BKTC)
        store_BKSC.scatter_(2, index, new_BKTC)
    return store_BKSC[:, :, : place.stop]


def _mask(position: Tensor, stop: int, dtype: torch.dtype) -> Tensor:
    """0 where a position may look, −∞ where it may not: ``[…, T] → […, T, S]``."""
    hidden = torch.arange(stop, device=position.device) > position[..., None]
    return torch.zeros(hidden.shape, dtype=dtype, device=position.device).masked_fill_(hidden, -torch.inf)


def _room(length: int) -> int:
    """Round up to a power of two ≥ 256, so that few tables are ever built."""
    return max(256, 1 << (length - 1).bit_length())


@functools.lru_cache(maxsize=16)
def _turns(
    head_width: int, base: float, length: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Tables ``[S, C]`` of cos and of sin with the sign of the rotation in its first half."""
    with torch.inference_mode(False), torch.no_grad():
        power = torch.arange(0, head_width, 2, dtype=torch.float32) / head_width
        angle = torch.outer(torch.arange(length, dtype=torch.float32), 1.0 / base**power)
        cos, sin = angle.cos(), angle.sin()
        tables = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        return tables[0].to(device, dtype), tables[1].to(device, dtype)
