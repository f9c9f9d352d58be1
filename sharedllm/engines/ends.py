"""Both ends of a model, which a primary keeps: tokens to hidden states, and hidden states to logits.

No worker holds either, so no worker sees a token; what hidden states reveal all the same is not *covered*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sharedllm import store
from sharedllm.engines.ternary import opened_head
from sharedllm.model import Config, PackedProjection
from sharedllm.model.norm import RMSNorm
from sharedllm.store import Manifest, ternary

__all__ = ["Ends"]


class Ends:
    """The embedding, the final norm and the head, from ``store.opened_ends``; the head is packed (a copy).

    ``gain_D`` is the base's own gain of the final norm. ``opened`` makes them of a model in the store.
    """

    def __init__(self, config: Config, tensors: Mapping[str, Tensor], head: nn.Module | None = None) -> None:
        self.config = config
        self._embed_VD = tensors["embed.weight"]
        self._head_VD = tensors.get("head.weight", self._embed_VD)
        self._norm = RMSNorm(config.width, config.norm_eps).requires_grad_(False)
        self._norm.weight.data = self.gain_D = tensors["norm.weight"]
        self._head = head or PackedProjection(self._head_VD)

    @classmethod
    def opened(cls, manifest: Manifest) -> Ends:
        """Both ends of a model in the store; a ternary one's head is read as the int8 that it is.

        Raises ``BadModelFile`` for a blob that is missing or damaged.
        """
        head = opened_head(manifest) if manifest.dtype == ternary.DTYPE else None
        return cls(manifest.config, store.opened_ends(manifest), head)

    def embed(self, tokens: Sequence[int]) -> Tensor:
        """``tokens → h_RD``."""
        return self._embed_VD[torch.tensor(tokens, dtype=torch.long)]

    def logits(self, h_RD: Tensor, gains_RD: Tensor | None = None) -> Tensor:
        """``h_RD → logits_RV``, each row the same bits in any company.

        ``gains_RD``: what each row's final norm wears in place of ``gain_D``.
        """
        with torch.inference_mode():
            logits_RV: Tensor = self._head(self._norm(h_RD, gains_RD))
        return logits_RV

    def contributions(self, states_SD: Tensor, token: int, gain_D: Tensor | None = None) -> list[float]:
        """What each step of the residual stream added to a token's logit, above the mean of all logits.

        ``states_SD``: the embedding and then every layer's output at one position. The differences between
        neighbours are projected on the token's direction behind the final norm, whose scale is that of the
        last state (direct logit attribution; Elhage et al. 2021, "A Mathematical Framework for Transformer
        Circuits"), and whose gain is ``gain_D`` where an adapter was worn. The first number is the
        embedding's own; all of them sum to the logit above the mean.
        """
        with torch.inference_mode():
            last_D = states_SD[-1].double()
            worn_D = self.gain_D if gain_D is None else gain_D
            scale = (last_D.square().mean() + self.config.norm_eps).rsqrt() * worn_D.double()
            direction_D = (self._head_VD[token].double() - self._head_VD.mean(dim=0).double()) * scale
            steps_SD = torch.diff(states_SD.double(), dim=0, prepend=torch.zeros(1, len(last_D)))
            return [float(value) for value in steps_SD @ direction_D]
