"""A ``peft`` folder: ``adapter_config.json`` and ``adapter_model.safetensors``, in transformers' names.

``peft`` computes y + (α/r) · B(A x). We write α = r and our B, which has the scale in it; we read any α and r
(``use_rslora``: α/√r) and put the scale into B. Projections that a folder leaves alone become zeros, and
unequal ranks are filled up with zeros: the product is the same.

The base's hash rides in the tensors' metadata. A folder made elsewhere has none: whoever reads it vouches for
the base. Format: huggingface/peft ``PeftConfigMixin.save_pretrained`` and ``get_peft_model_state_dict``; the
tests load what we write with peft, and read what peft writes.

*Covered*: another base (where the folder says), names and shapes that don't fit, DoRA, biases, replicated
layers and whatever else is not plain LoRA. *Not covered*: bases with experts, which transformers lacks.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from sharedllm.adapters.file import Adapter
from sharedllm.adapters.lora import Lora
from sharedllm.errors import BadAdapter
from sharedllm.model.transformer import Transformer
from sharedllm.store import Loaded, atomic

__all__ = ["read_folder", "write_folder"]

_CONFIG, _TENSORS = "adapter_config.json", "adapter_model.safetensors"
_THEIRS = {
    **{f"attention.{name}": f"self_attn.{name}_proj" for name in "qkvo"},
    **{f"feedforward.{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")},
}
_OURS = {theirs: ours for ours, theirs in _THEIRS.items()}
_KEY = re.compile(
    r"base_model\.model\.model\.layers\.(\d{1,4})\.((?:self_attn|mlp)\.\w+)\.lora_(A|B)(?:\.default)?\.weight"
)
_CEILING_BYTES = 1 << 20
_MOST_RANK = 1 << 14  # projections that a folder leaves alone take memory too
# what changes nothing in how the tensors are meant; any other key must be empty
_HARMLESS = {
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
}
_PLAIN: dict[str, tuple[object, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "default"),
}


def write_folder(folder: Path, adapter: Adapter, base: Loaded) -> None:
    """Write a ``lora`` adapter of a dense base for ``peft``; files of the same names are replaced.

    Raises ``BadAdapter`` for another method or base, or a base with experts; ``WriteFailed``.
    """
    model = _dense(base)
    if adapter.method != "lora" or adapter.base_sha256 != base.manifest.weights_sha256:
        raise BadAdapter(
            f"Only a lora adapter of {base.manifest.name} can go into a peft folder for it; this is a "
            f"{adapter.method} adapter of the base {adapter.base_sha256[:12]}…."
        )
    Lora.weights(model, adapter.tensors)  # checks names and that A and B multiply
    rank = max(tensor.shape[0] for name, tensor in adapter.tensors.items() if name.endswith(".A"))
    tensors = {_their_key(name): _filled(name, tensor, rank) for name, tensor in adapter.tensors.items()}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.manifest.name,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": sorted(theirs.rpartition(".")[2] for theirs in _OURS),
    }
    metadata = {"format": "pt", "base_sha256": adapter.base_sha256}
    atomic.write_bytes(folder / _TENSORS, safetensors.torch.save(tensors, metadata))
    atomic.write_bytes(folder / _CONFIG, json.dumps(config, indent=2).encode())


def read_folder(folder: Path, base: Loaded) -> Adapter:
    """Read a ``peft`` folder as a ``lora`` adapter of ``base``.

    Raises ``BadAdapter`` for files that are missing or damaged, that are more than plain LoRA, or that don't
    fit the base.
    """
    model = _dense(base)
    scale, rank = _scale(folder)
    try:
        with safetensors.safe_open(folder / _TENSORS, framework="pt") as file:
            metadata = file.metadata() or {}
            given: dict[str, Tensor] = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise BadAdapter(f"{folder / _TENSORS} is not a whole safetensors file ({error}).") from error
    sha256 = base.manifest.weights_sha256
    if metadata.get("base_sha256", sha256) != sha256:
        raise BadAdapter(
            f"{folder} adapts the base with weights {metadata['base_sha256'][:12]}…, and "
            f"{base.manifest.name} is {sha256[:12]}…. Load the base it was fitted on."
        )
    tensors = {_our_name(key): tensor for key, tensor in given.items()}
    return Adapter("lora", sha256, _completed(folder, tensors, model, scale, rank))


def _dense(base: Loaded) -> Transformer:
    if base.model.config.experts:
        raise BadAdapter(
            f"{base.manifest.name} has experts, and peft's folders are for models of transformers, which has "
            "no such model. Keep the adapter in its own file."
        )
    return base.model


def _scale(folder: Path) -> tuple[float, int]:
    """Read what multiplies B · A, and the rank. Raises ``BadAdapter`` for anything but plain LoRA."""
    path = folder / _CONFIG
    try:
        with path.open("rb") as file:
            config: Any = json.loads(file.read(_CEILING_BYTES))
        if config.get("peft_type") != "LORA":
            raise ValueError(f"its type is {config.get('peft_type')!r}, not 'LORA'")
        for key, value in config.items():
            plain = value in _PLAIN[key] if key in _PLAIN else not value
            if key not in _HARMLESS and not plain:
                raise ValueError(f"it asks for {key} = {value!r}, which is not plain LoRA")
        rank, alpha = config["r"], config["lora_alpha"]
        if type(rank) is not int or not 1 <= rank <= _MOST_RANK or not math.isfinite(alpha):
            raise ValueError(f"its rank is {rank!r} and its alpha {alpha!r}")
        return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank), rank
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise BadAdapter(f"{path} is no configuration of an adapter that can be read ({error}).") from error


def _completed(
    folder: Path, given: dict[str, Tensor], model: Transformer, scale: float, rank: int
) -> dict[str, Tensor]:
    """Give every adapted weight of the model its A and B: those given, or zeros."""
    weights = dict(model.named_parameters())
    tensors: dict[str, Tensor] = {}
    for layer in range(model.config.layers):
        for ours in _THEIRS:
            name = f"blocks.{layer}.{ours}.weight"
            out, into = weights[name].shape
            a, b = given.pop(f"{name}.A", None), given.pop(f"{name}.B", None)
            if (a is None) != (b is None):
                raise BadAdapter(f"{folder} holds only one of the two factors for {name}.")
            a = torch.zeros(rank, into) if a is None else a
            b = torch.zeros(out, rank) if b is None else b
            if a.shape != (rank, into) or b.shape != (out, rank):
                raise BadAdapter(
                    f"{folder} changes {name} by {tuple(b.shape)} × {tuple(a.shape)}, and the base takes "
                    f"{(out, rank)} × {(rank, into)}. Load the base that it was fitted on."
                )
            tensors[f"{name}.A"], tensors[f"{name}.B"] = a, b * scale
    if given:
        raise BadAdapter(f"{folder} changes {min(given)}, which {model.config.layers} layers don't have.")
    return tensors


def _filled(name: str, tensor: Tensor, rank: int) -> Tensor:
    missing = rank - tensor.shape[0 if name.endswith(".A") else 1]
    return F.pad(tensor, (0, 0, 0, missing) if name.endswith(".A") else (0, missing)).contiguous()


def _their_key(name: str) -> str:
    _, layer, module, weight, _, factor = name.split(".")
    theirs = _THEIRS[f"{module}.{weight}"]
    return f"base_model.model.model.layers.{layer}.{theirs}.lora_{factor}.weight"


def _our_name(key: str) -> str:
    match = _KEY.fullmatch(key)
    if match is None or match[2] not in _OURS:
        raise BadAdapter(f"An adapter for {key} can't be read: only projections of Llama's layers can.")
    return f"blocks.{int(match[1])}.{_OURS[match[2]]}.weight.{match[3]}"
