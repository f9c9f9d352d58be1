"""The feed-forward half of a block: one SwiGLU, or one of many chosen per token by a router.

*Covered*: every token is computed by exactly the expert that its router prefers, none is dropped, and the
router learns (its probability scales the output). *Not covered*: capacity limits, more than one expert per
token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharedllm.model.config import Config
from sharedllm.model.projection import Projection, join, pack, project, project_all

__all__ = ["MixtureOfExperts", "SwiGLU"]

_LANES = 32  # PyTorch computes so many elements, or a power of two below, at a time; a rest one by one
_SERIAL = 1 << 14  # up to so many elements it uses one thread


class SwiGLU(nn.Module):
    """``h_BTD → down(silu(gate(h)) · up(h))``. Shazeer, 2002.05202 §2."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate: nn.Module = Projection(config.width, config.hidden)
        self.up: nn.Module = Projection(config.width, config.hidden)
        self.down: nn.Module = Projection(config.hidden, config.width)
        self._silu: Callable[[Tensor], Tensor] = F.silu

    def forward(self, h_BTD: Tensor) -> Tensor:
        """Apply the gated unit to each position."""
        gate_BTF, up_BTF = project_all(h_BTD, self.gate, self.up)
        down_BTD: Tensor = self.down(self._silu(gate_BTF) * up_BTF)
        return down_BTD

    def join(self) -> None:
        """Lay gate and up end to end, so that decoding reads them in one product."""
        join(self.gate, self.up)

    def pack(self) -> None:
        """Serve from now on: see ``PackedProjection``."""
        self.gate, self.up = pack(self.gate, self.up)
        (self.down,) = pack(self.down)
        self._silu = _steady_silu


class MixtureOfExperts(nn.Module):
    """Send each token to the one SwiGLU that a linear router prefers: ``p_e(h) · expert_e(h)``.

    Tokens are sorted by expert, so each expert present computes its group in one product. After a forward
    in training mode ``balance`` holds Switch's load-balance loss ``E · Σ_e f_e P_e`` (1 when even; ``f`` the
    share of tokens sent to e, ``P`` its mean probability). Fedus et al., 2101.03961 §2.1–2.2.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        expand = (config.experts, config.hidden, config.width)
        self.router: nn.Module = Projection(config.width, config.experts)
        self._fewest = 1
        self._silu: Callable[[Tensor], Tensor] = F.silu
        self.gate_EFD = nn.Parameter(torch.empty(expand))
        self.up_EFD = nn.Parameter(torch.empty(expand))
        self.down_EDF = nn.Parameter(torch.empty(config.experts, config.width, config.hidden))
        self.experts: nn.ModuleList | None = None
        self.balance: Tensor | None = None

    def forward(self, h_BTD: Tensor) -> Tensor:
        """Route, compute each expert's group of tokens, put the results back in place."""
        # One row per token, whatever the batch: M is B · T.
        h_MD = h_BTD.reshape(-1, h_BTD.shape[-1])
        p_ME = torch.softmax(self.router(h_MD), dim=-1)
        p_M, expert_M = p_ME.max(dim=-1)
        load_E = torch.bincount(expert_M, minlength=p_ME.shape[-1])
        if self.training:
            share_E = p_ME.float().mean(dim=0)  # bf16 where products are
            self.balance = p_ME.shape[-1] * torch.dot(load_E / max(len(h_MD), 1), share_E)
        order_M = torch.argsort(expert_M, stable=True)
        groups = torch.split(h_MD[order_M], load_E.tolist())
        out_MD = torch.cat(self._outputs(groups))
        back_M = torch.empty_like(order_M).index_copy_(
            0, order_M, torch.arange(len(order_M), device=order_M.device)
        )
        return (out_MD[back_M] * p_M[:, None]).view_as(h_BTD)

    def pack(self) -> None:
        """Serve from now on: a token's result no longer depends on which others chose its expert."""
        (self.router,) = pack(self.router)
        self._fewest, self._silu = 2, _steady_silu

    def replace(self, experts: Sequence[nn.Module]) -> None:
        """Compute with these experts from now on, in place of the stacks, which are let go."""
        self.experts = nn.ModuleList(experts)
        del self.gate_EFD, self.up_EFD, self.down_EDF

    def _outputs(self, groups: Sequence[Tensor]) -> list[Tensor]:
        """What each expert makes of its group of tokens, where it has any."""
        if self.experts is not None:
            return [expert(group) for expert, group in zip(self.experts, groups, strict=True) if len(group)]
        # unbind, not indexing: its gradient is one stack instead of E tensors of zeros
        stacks = zip(
            groups, self.gate_EFD.unbind(), self.up_EFD.unbind(), self.down_EDF.unbind(), strict=True
        )
        return [self._computed(*each) for each in stacks if len(each[0])]

    def _computed(self, group_MD: Tensor, gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor) -> Tensor:
        """One expert's SwiGLU of its group of tokens, computed over at least ``_fewest`` rows."""
        enough = len(group_MD) >= self._fewest
        rows = group_MD if enough else group_MD.expand(self._fewest, -1).contiguous()
        out_MD = project(self._silu(project(rows, gate_FD)) * project(rows, up_FD), down_DF)
        return out_MD[: len(group_MD)]


def _steady_silu(x: Tensor) -> Tensor:
    """``F.silu``, with the same bits for an element wherever it stands.

    PyTorch's exponential differs in the last bit between its vectors and what is left over at the end of a
    tensor, or of a thread's part of it.
    """
    rest = -x.shape[-1] % _LANES
    if not rest and x.numel() <= _SERIAL:
        return F.silu(x)
    whole = F.pad(x, (0, rest))
    parts = [F.silu(part) for part in torch.split(whole.reshape(-1), _SERIAL)]
    return torch.cat(parts).view_as(whole)[..., : x.shape[-1]]
