"""The feed-forward half of a frozen base, forwards and backwards: one SwiGLU, or one of many per token.

Tokens of one expert lie side by side, padded to a multiple of eight: oneDNN prepares a product for every
number of rows anew, and so there are few numbers. What is not a product runs once over all experts.
Everything that is kept is kept from a forward to its backward.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sharedllm.model.feedforward import MixtureOfExperts, SwiGLU

__all__ = ["Dense", "Experts"]

_MULTIPLE = 8
_silu_slope = torch.ops.aten.silu_backward


class Dense:
    """One SwiGLU for every token."""

    def __init__(self, part: SwiGLU, dtype: torch.dtype) -> None:
        names = ("gate.weight", "up.weight", "down.weight")
        gate_FD, up_FD, self._down_DF = (part.get_parameter(name).detach().to(dtype) for name in names)
        self._both_XD = torch.cat((gate_FD, up_FD))
        self._kept: tuple[Tensor, ...] = ()

    def forward(self, x_RTD: Tensor, place: object) -> Tensor:
        """Apply the gated unit: fp32 in and out."""
        both_RTX = x_RTD.to(self._both_XD.dtype) @ self._both_XD.T
        gate_RTF, up_RTF = both_RTX.chunk(2, -1)
        opened_RTF = F.silu(gate_RTF)
        self._kept = (gate_RTF, up_RTF, opened_RTF)
        return ((opened_RTF * up_RTF) @ self._down_DF.T).float()

    def backward(self, dy_RTD: Tensor, place: object) -> Tensor:
        """Give the gradient of the input, fp32."""
        gate_RTF, up_RTF, opened_RTF = self._kept
        self.forget()
        d_RTF = dy_RTD.to(self._both_XD.dtype) @ self._down_DF
        dboth_RTX = torch.cat((_silu_slope(d_RTF * up_RTF, gate_RTF), d_RTF * opened_RTF), -1)
        dx_RTD: Tensor = dboth_RTX @ self._both_XD
        return dx_RTD.float()

    def forget(self) -> None:
        """Let go of what backward would need."""
        self._kept = ()


class Experts:
    """``p_e(x) · expert_e(x)`` for the expert e that the router prefers; the router's part stays fp32."""

    def __init__(self, part: MixtureOfExperts, dtype: torch.dtype) -> None:
        self._router_ED = part.get_parameter("router.weight").detach().float()
        self._both_EXD = torch.cat((part.gate_EFD.detach(), part.up_EFD.detach()), 1).to(dtype)
        self._down_EDF = part.down_EDF.detach().to(dtype)
        self._kept: tuple[Tensor, ...] = ()
        self._groups: list[tuple[int, int, int]] = []

    def forward(self, x_RTD: Tensor, place: object) -> Tensor:
        """Route, compute each expert's group, put the results back in place: fp32 in and out."""
        x_MD = x_RTD.flatten(0, 1)
        p_ME = (x_MD @ self._router_ED.T).softmax(-1)
        p_M, expert_M = p_ME.max(-1)
        at_M, rows = self._laid_out(expert_M)
        both_PX = self._products(self._spread(x_MD, at_M, rows), self._both_EXD.mT)
        gate_PF, up_PF = both_PX.chunk(2, -1)
        opened_PF = F.silu(gate_PF)
        y_MD = self._products(opened_PF * up_PF, self._down_EDF.mT)[at_M].float()
        self._kept = (p_ME, p_M, expert_M, at_M, gate_PF, up_PF, opened_PF, y_MD)
        return (y_MD * p_M[:, None]).view_as(x_RTD)

    def backward(self, dy_RTD: Tensor, place: object) -> Tensor:
        """Give the gradient of the input, through the expert and through the router, fp32."""
        p_ME, p_M, expert_M, at_M, gate_PF, up_PF, opened_PF, y_MD = self._kept
        self.forget()
        dy_MD = dy_RTD.flatten(0, 1)
        weight_M = (dy_MD * y_MD).sum(-1) * p_M
        droute_ME = (p_ME * -weight_M[:, None]).scatter_add_(1, expert_M[:, None], weight_M[:, None])
        d_PF = self._products(self._spread(dy_MD * p_M[:, None], at_M, len(gate_PF)), self._down_EDF)
        dboth_PX = torch.cat((_silu_slope(d_PF * up_PF, gate_PF), d_PF * opened_PF), -1)
        dx_MD = self._products(dboth_PX, self._both_EXD)[at_M].float()
        return dx_MD.addmm_(droute_ME, self._router_ED).view_as(dy_RTD)

    def forget(self) -> None:
        """Let go of what backward would need."""
        self._kept = ()

    def _laid_out(self, expert_M: Tensor) -> tuple[Tensor, int]:
        """Find each token's row among groups that are padded; set the groups (expert, start, stop)."""
        load_E = torch.bincount(expert_M, minlength=len(self._router_ED))
        room_E = (load_E + _MULTIPLE - 1) // _MULTIPLE * _MULTIPLE
        stop_E, order_M = room_E.cumsum(0), expert_M.argsort(stable=True)
        shift_E = (stop_E - room_E) - (load_E.cumsum(0) - load_E)
        row_M = torch.arange(len(expert_M), device=expert_M.device) + shift_E[expert_M[order_M]]
        at_M = torch.empty_like(order_M).index_copy_(0, order_M, row_M)
        stops, rooms = stop_E.tolist(), room_E.tolist()
        self._groups = [
            (expert, stop - room, stop)
            for expert, (stop, room) in enumerate(zip(stops, rooms, strict=True))
            if room
        ]
        return at_M, stops[-1]

    def _spread(self, x_MD: Tensor, at_M: Tensor, rows: int) -> Tensor:
        dtype = self._down_EDF.dtype
        return x_MD.new_zeros(rows, x_MD.shape[1], dtype=dtype).index_copy_(0, at_M, x_MD.to(dtype))

    def _products(self, x_PY: Tensor, weights_EYZ: Tensor) -> Tensor:
        """Multiply each group by its expert's matrix."""
        out_PZ = x_PY.new_empty(len(x_PY), weights_EYZ.shape[-1])
        for expert, start, stop in self._groups:
            torch.mm(x_PY[start:stop], weights_EYZ[expert], out=out_PZ[start:stop])
        return out_PZ
