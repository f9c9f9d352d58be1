"""LoRA of rank 4 through ``peft``: δ = (α/r) · B · A beside each projection, α/r = 2.

What gets it: ``q``, ``k``, ``v``, ``o`` of every attention; ``gate``, ``up``, ``down`` of every dense
feed-forward; in a mixture of experts the three stacked expert tensors, each expert with its own A and B
(peft's ``target_parameters``). Not: the router, embedding, head and gains. All linear layers, as Schulman et
al. ("LoRA without regret", 2025) find needed.

Parameters: 4 · (inputs + outputs) per matrix: 1,221,120 on SmolLM2-135M. Source: Hu et al. 2106.09685 §4.1;
bet b037.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from sharedllm.adapters.twin import same_names, twin
from sharedllm.errors import BadAdapter
from sharedllm.model.transformer import Transformer

__all__ = ["RANK", "Lora"]

RANK = 4
_ALPHA = 2 * RANK
_NAME = "default"
_MODULES = ["q", "k", "v", "o", "gate", "up", "down"]
_EXPERTS = ["feedforward.gate_EFD", "feedforward.up_EFD", "feedforward.down_EDF"]
_ADAPTED = re.compile(rf"\.(?:(?:{'|'.join(_MODULES)})\.weight|{'|'.join(_EXPERTS)})$")


class Lora:
    """The A and B of every adapted matrix of a twin; see ``apply.Method`` for the calls.

    Raises ``BadAdapter`` where ``peft`` is not installed.
    """

    def __init__(self, base: Transformer, seed: int, precision: str) -> None:
        try:
            import peft  # takes seconds to import, and only this method needs it
        except ImportError as error:
            raise BadAdapter(
                "Fitting a lora adapter needs peft, which is not installed: pip install 'sharedllm[bets]', "
                "or choose another method; norm needs nothing more."
            ) from error
        config = peft.LoraConfig(
            r=RANK,
            lora_alpha=_ALPHA,
            target_modules=_MODULES,
            target_parameters=_EXPERTS if base.config.experts else None,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # peft draws A from the global generator; B starts at zero
            self.model = twin(base, (), precision)
            peft.inject_adapter_in_model(config, self.model, _NAME)
        self.parameters: list[nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_("lora_" in name)
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
                self.parameters.append(parameter)

    def delta(self) -> dict[str, Tensor]:
        """Give ``A`` and ``B`` per adapted weight, fp32, with the scale folded into ``B``: δ = B @ A."""
        from peft.tuners.lora.layer import LoraLayer

        tensors: dict[str, Tensor] = {}
        for path, module in self.model.named_modules():
            if isinstance(module, LoraLayer):
                a, b = _factors(module)
                name = ".".join(part for part in path.split(".") if part != "base_layer")
                weight = f"{name}.{getattr(module, 'parameter_name', 'weight')}"
                tensors[f"{weight}.A"] = a.detach().clone()
                tensors[f"{weight}.B"] = (b * module.scaling[_NAME]).detach().contiguous()
        return tensors

    @staticmethod
    def weights(model: Transformer, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Multiply out B @ A per weight. Raises ``BadAdapter`` unless exactly those above have both."""
        adapted = {name: weight for name, weight in model.named_parameters() if _ADAPTED.search(name)}
        same_names("lora", set(tensors), {f"{name}.{factor}" for name in adapted for factor in "AB"})
        for name, weight in adapted.items():
            _refuse_misfit(name, tensors[f"{name}.A"], tensors[f"{name}.B"], weight)
        return {name: tensors[f"{name}.B"] @ tensors[f"{name}.A"] for name in sorted(adapted)}


def _refuse_misfit(name: str, a: Tensor, b: Tensor, weight: Tensor) -> None:
    """Raise ``BadAdapter`` unless B @ A has the weight's shape; of two thin factors it may be huge."""
    try:
        shape = (b.to("meta") @ a.to("meta")).shape
    except RuntimeError as error:
        raise BadAdapter(f"An adapter's A and B do not multiply ({error}); fit it again.") from error
    if shape != weight.shape:
        raise BadAdapter(
            f"The lora adapter changes {name} by {tuple(shape)}, but the model's has {tuple(weight.shape)}. "
            "Load the base that it was fitted on."
        )


def _factors(layer: Any) -> tuple[Tensor, Tensor]:
    """Read A ``[r, in]`` and B ``[out, r]``, or stacks of them where peft packs E experts into one matrix."""
    a, b = layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
    experts = getattr(layer, "num_experts", 1)
    if experts == 1:
        return a, b
    return a.reshape(experts, RANK, -1), b.reshape(-1, RANK, experts).permute(2, 0, 1)
