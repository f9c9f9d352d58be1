"""A model with trits that learns from the full one: its gains; with ``scales`` these too; with ``trits`` all.

With ``trits``, every matrix has latent weights u in units of its scale: forward ``s · round(u)``, backward
straight through to u (Bengio et al. 1308.3432 §2.3) and exactly to s. They start as the full model's weights,
as far as the calibrated trits allow. Gains and scales are learnt as shares of what they were, since a norm's
gains are 0.02 in one layer and 2 in another.

*Not covered*: latent weights of two planes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sharedllm.errors import BadRecipe
from sharedllm.model import Transformer
from sharedllm.store.ternary import TernaryTensor

__all__ = ["Final", "Learnt", "Student", "frozen"]

Learnt = Literal["gains", "scales", "trits"]

_LATENT_SHARE = 0.2  # of the rate: a latent weight that moves by 1 has changed its trit
_WITHIN = 0.49  # of a trit: a latent weight starts on its side of the threshold


class Final(nn.Module):
    """What a model gives its head."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor) -> Tensor:
        h_BTD: Tensor = self.model.norm(self.model.hidden(tokens_BT))
        return h_BTD.flatten(0, 1).float()


class _Latent(torch.autograd.Function):
    """Round latent weights and scale them; backward straight through to them, exactly to the scales."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, scales: Tensor) -> Tensor:
        trits = u.round().clamp_(-1, 1)
        ctx.save_for_backward(trits, scales)
        grouped = trits.view(*scales.shape, -1)
        return (grouped * scales[..., None]).view(u.shape)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, Tensor]:
        trits, scales = ctx.saved_tensors
        grouped = slopes[0].view(*scales.shape, -1)
        by_scale = (grouped * trits.view_as(grouped)).sum(-1)
        moving = ctx.needs_input_grad[0]
        return (grouped * scales[..., None]).view(trits.shape) if moving else None, by_scale


class Student:
    """A model with trits whose gains, and if asked trits and scales, are parameters; all else is frozen."""

    def __init__(
        self,
        model: Transformer,
        weights: Mapping[str, TernaryTensor],
        *,
        learnt: Learnt,
        precision: torch.dtype,
    ) -> None:
        self._precision, self.low = precision, precision != torch.float32
        given = {name: weight.detach() for name, weight in model.state_dict().items()}
        self.latent: dict[str, tuple[Tensor, nn.Parameter, Tensor]] = {}
        for name, weight in weights.items():
            given[name] = weight.restored()
            if learnt != "gains":
                u, scales = _latent(model.get_parameter(name).detach(), weight)
                held = nn.Parameter(u) if learnt == "trits" else u
                self.latent[name] = held, nn.Parameter(torch.ones_like(scales)), scales
        self.model = frozen(model, given, precision)
        self._gains = {name: gain.detach() for name, gain in self.model.gains().items()}
        self._shares = {name: nn.Parameter(torch.ones_like(gain)) for name, gain in self._gains.items()}
        self._final = Final(self.model)

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Say what is learnt, and how fast: gains and scales at ``rate``, latent weights slower."""
        scales = [share for _, share, _ in self.latent.values()]
        latent = [u for u, _, _ in self.latent.values() if u.requires_grad]
        groups = [{"params": [*self._shares.values(), *scales], "lr": rate}]
        return [*groups, {"params": latent, "lr": _LATENT_SHARE * rate}] if latent else groups

    def __call__(self, tokens_BT: Tensor) -> Tensor:
        """Give the final normed hidden state of every token, ``h_MD``."""
        made = {f"model.{name}": _weight(*latent) for name, latent in self.latent.items()}
        made |= {f"model.{name}": gain * self._shares[name] for name, gain in self._gains.items()}
        with torch.autocast("cpu", self._precision, enabled=self.low):
            h_MD: Tensor = functional_call(self._final, made, (tokens_BT,))
        return h_MD

    @torch.no_grad()
    def kept(
        self, weights: Mapping[str, TernaryTensor]
    ) -> tuple[dict[str, Tensor], dict[str, TernaryTensor]]:
        """Copy gains and trits as they stand."""
        found = dict(weights)
        for name, (u, share, scales) in self.latent.items():
            trits = u.round().clamp_(-1, 1).to(torch.int8)
            found[name] = TernaryTensor.of((trits, (scales * share).half().float()))
        return {name: gain * self._shares[name] for name, gain in self._gains.items()}, found


def _latent(full_XOI: Tensor, weight: TernaryTensor) -> tuple[Tensor, Tensor]:
    """Latent weights in units of their scale, the full model's as far as the trits allow; and the scales."""
    if weight.planes != 1:
        raise BadRecipe("Scales and trits of two planes can't be learnt; repair their gains alone.")
    scales = weight.scales[0].float()
    trits = weight.unpacked()[0].float()
    grouped = full_XOI.reshape(*scales.shape, -1) / scales.clamp_min(2.0**-24)[..., None]
    return grouped.view(full_XOI.shape).clamp(trits - _WITHIN, trits + _WITHIN), scales


def _weight(u: Tensor, share: Tensor, scales: Tensor) -> Tensor:
    made: Tensor = _Latent.apply(u, scales * share)  # type: ignore[no-untyped-call]
    return made


def frozen(model: Transformer, given: Mapping[str, Tensor], precision: torch.dtype) -> Transformer:
    """A model of these weights that learns nothing; matrices in ``precision``, gains its own in fp32."""
    with torch.device("meta"):
        same = Transformer(model.config)
    gains = model.gains()
    weights = {
        name: weight.clone() if name in gains else weight if name == "embed.weight" else weight.to(precision)
        for name, weight in given.items()
    }
    same.load_state_dict(weights, assign=True)
    return same.requires_grad_(False).eval()
