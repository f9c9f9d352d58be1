"""A base laid out for learning gains and nothing else: loss and gradient of many sets of gains, by hand.

Where only gains are learnt, automatic differentiation does work that nobody needs: it keeps both operands of
every product, rounds the same input once per projection, and can't know that rows of a batch may wear gains
of their own. Here projections of one input are one product, each operand is rounded once, a weight gets no
gradient, and a row is a window with its own gains: several learning rates can share one batch. Attention is
four plain products per layer, which at windows of some hundred tokens are twice as fast as PyTorch's blocked
kernel on a CPU [measured]; it holds T² numbers per head, so it is not for long windows.

On SmolLM2-135M a step of 256 tokens takes 1.04 seconds of one core, by automatic differentiation 1.25; its
products alone would take 0.7 at the best rate seen [measured beside other work, bf16].

*Covered*: dense and mixture-of-experts bases, the way through the router included; tests hold loss and
gradient to automatic differentiation's. *Not covered*: other methods than ``norm``; caches.

Shapes: R rows of T tokens, M = R · T, G = 2L + 1 norms, F the hidden width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedllm.adapters.head import head_weight
from sharedllm.adapters.personal.feeding import Dense, Experts
from sharedllm.adapters.personal.surprise import nats_and_slope
from sharedllm.model.attention import turns_at
from sharedllm.model.feedforward import MixtureOfExperts
from sharedllm.model.transformer import Block, Transformer

__all__ = ["Frozen"]


class Frozen:
    """The base's frozen weights in ``dtype``, products first; the base itself is not touched."""

    def __init__(self, base: Transformer, dtype: torch.dtype) -> None:
        self.config, self.dtype = base.config, dtype
        self._rows_at_once = 4 if base.config.experts else 1
        self._embed_VD = base.embed.weight.detach()
        self._head_VD = head_weight(base).detach().to(dtype)
        self._layers = [_Layer(block, dtype) for block in base.blocks]  # type: ignore[arg-type]

    def nats(self, tokens_RT: Tensor, gains_RGD: Tensor) -> Tensor:
        """Compute each row's mean loss per token, nats: ``nats_R``. Tokens are context and one more."""
        rows = self._rows(tokens_RT, gains_RGD)
        return torch.cat([self._run(tokens, gains, slope=False)[0] for tokens, gains in rows])

    def slopes(self, tokens_RT: Tensor, gains_RGD: Tensor) -> tuple[Tensor, Tensor]:
        """Compute each row's mean loss and its gradient by that row's gains: ``nats_R, slope_RGD``."""
        rows = self._rows(tokens_RT, gains_RGD)
        nats, slopes = zip(*(self._run(tokens, gains, slope=True) for tokens, gains in rows), strict=True)
        return torch.cat(nats), torch.cat(slopes)

    def _rows(self, tokens_RT: Tensor, gains_RGD: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        n = self._rows_at_once
        return zip(torch.split(tokens_RT, n), torch.split(gains_RGD, n), strict=True)

    @torch.no_grad()
    def _run(self, tokens_RT: Tensor, gains_RGD: Tensor, slope: bool) -> tuple[Tensor, Tensor]:
        h_RTD = torch.nn.functional.embedding(tokens_RT[:, :-1], self._embed_VD).float()
        place = _Place.of(self, h_RTD)
        tape: list[_Normed] = []
        for number, layer in enumerate(self._layers):
            for which, part in enumerate((layer.attention, layer.feedforward)):
                normed = _Normed(h_RTD, gains_RGD[:, 2 * number + which], self.config.norm_eps)
                h_RTD = h_RTD + part.forward(normed.out_RTD, place)
                if slope:
                    tape.append(normed)
                else:
                    part.forget()
        normed = _Normed(h_RTD, gains_RGD[:, -1], self.config.norm_eps)
        nats_R, dh_RTD = nats_and_slope(normed.out_RTD, self._head_VD, tokens_RT[:, 1:], slope)
        if dh_RTD is None:
            return nats_R, gains_RGD
        slope_RGD = torch.empty_like(gains_RGD)
        dh_RTD, slope_RGD[:, -1] = normed.backward(dh_RTD)
        for number in reversed(range(len(tape))):
            layer = self._layers[number // 2]
            part = layer.feedforward if number % 2 else layer.attention
            back_RTD, slope_RGD[:, number] = tape.pop().backward(part.backward(dh_RTD, place))
            dh_RTD += back_RTD
        return nats_R, slope_RGD


@dataclass(frozen=True)
class _Place:
    """What all layers share: the turns of rotary positions ``[T, 1, C]`` and the causal mask ``[T, T]``."""

    cos: Tensor
    sin: Tensor
    mask_TT: Tensor

    @classmethod
    def of(cls, frozen: Frozen, h_RTD: Tensor) -> _Place:
        T = h_RTD.shape[1]
        cos, sin = turns_at(frozen.config, torch.arange(T, device=h_RTD.device))
        mask_TT = torch.full((T, T), -torch.inf, device=h_RTD.device).triu_(1)
        return cls(cos[:, None], sin[:, None], mask_TT)


class _Normed:
    """One RMSNorm of rows with gains of their own, and the way back."""

    def __init__(self, h_RTD: Tensor, gain_RD: Tensor, eps: float) -> None:
        self._scale_RT1 = h_RTD.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        self._unit_RTD = h_RTD * self._scale_RT1
        self._gain_R1D = gain_RD[:, None]
        self.out_RTD = self._unit_RTD * self._gain_R1D

    def backward(self, dout_RTD: Tensor) -> tuple[Tensor, Tensor]:
        """Give the gradients of the input and of the gains."""
        shared_RTD = dout_RTD * self._unit_RTD
        dgain_RD = shared_RTD.sum(1)
        along_RT1 = shared_RTD.mul_(self._gain_R1D).mean(-1, keepdim=True)
        dh_RTD = (dout_RTD * self._gain_R1D).sub_(self._unit_RTD.mul_(along_RT1)).mul_(self._scale_RT1)
        return dh_RTD, dgain_RD


class _Layer:
    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        self.attention = _Attention(block, dtype)
        part = block.feedforward
        self.feedforward = Experts(part, dtype) if isinstance(part, MixtureOfExperts) else Dense(part, dtype)


class _Attention:
    """Causal attention with grouped heads; what backward needs is kept until then."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        config, part = block.attention.config, block.attention
        self._heads, self._shared, self._width = config.heads, config.kv_heads, config.head_width
        weights = [part.get_parameter(f"{name}.weight").detach().to(dtype) for name in "qkv"]
        self._qkv_XD, self._o_DX = torch.cat(weights), part.get_parameter("o.weight").detach().to(dtype)
        self._kept: tuple[Tensor, ...] = ()

    def forward(self, x_RTD: Tensor, place: _Place) -> Tensor:
        """Attend: fp32 in and out, products in the weights' format, scores and softmax in fp32."""
        R, T, _ = x_RTD.shape
        C, K, dtype = self._width, self._shared, self._qkv_XD.dtype
        x_RTHC = (x_RTD.to(dtype) @ self._qkv_XD.T).view(R, T, -1, C)
        turned = x_RTHC[:, :, : self._heads + K].float()
        turned = torch.addcmul(turned * place.cos, turned.roll(C // 2, -1), place.sin)
        q = self._grouped(turned[:, :, : self._heads].mul(C**-0.5))
        k, v = self._grouped(turned[:, :, self._heads :]), self._grouped(x_RTHC[:, :, self._heads + K :])
        score = torch.bmm(q, k.mT).view(R * K, -1, T, T).add_(place.mask_TT)
        p = score.softmax(-1).view(R * K, -1, T)
        low = p.to(dtype)
        out = torch.bmm(low, v)
        self._kept = (q.to(dtype), k.to(dtype), v, p, low, out)
        y_RTD: Tensor = self._joined(out, R, T) @ self._o_DX.T
        return y_RTD.float()

    def backward(self, dy_RTD: Tensor, place: _Place) -> Tensor:
        """Give the gradient of the input, fp32."""
        R, T, _ = dy_RTD.shape
        C, dtype = self._width, self._qkv_XD.dtype
        q, k, v, p, low, out = self._kept
        self.forget()
        dout = self._grouped((dy_RTD.to(dtype) @ self._o_DX).view(R, T, self._heads, C))
        dv = torch.bmm(low.mT, dout)
        along = (dout.float() * out).sum(-1, keepdim=True)
        ds = torch.bmm(dout, v.mT).float().sub_(along).mul_(p).to(dtype)
        dq, dk = torch.bmm(ds, k).mul_(C**-0.5), torch.bmm(ds.mT, q)
        parts = [self._joined(each, R, T).view(R, T, -1, C) for each in (dq, dk, dv)]
        dturned = torch.cat(parts[:2], 2).float()
        back = torch.addcmul(dturned * place.cos, dturned.roll(C // 2, -1), place.sin, value=-1).to(dtype)
        dx_RTD: Tensor = torch.cat((back, parts[2]), 2).view(R, T, -1) @ self._qkv_XD
        return dx_RTD.float()

    def forget(self) -> None:
        """Let go of what backward would need."""
        self._kept = ()

    def _grouped(self, x_RTHC: Tensor) -> Tensor:
        """Lay heads that share keys end to end: ``[R · K, H / K · T, C]``."""
        return x_RTHC.transpose(1, 2).reshape(len(x_RTHC) * self._shared, -1, self._width)

    def _joined(self, x: Tensor, R: int, T: int) -> Tensor:
        """Undo ``_grouped``, heads side by side: ``[R, T, H · C]``."""
        return x.view(R, -1, T, x.shape[-1]).transpose(1, 2).reshape(R, T, -1)
