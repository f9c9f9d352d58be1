"""An adapter at rest: a safetensors file that names its base by hash, and is refused by every other base.

Metadata: ``schema``, ``method``, ``base_sha256`` (of the base's weights). Tensors, by method:

| method | tensors | size on SmolLM2-135M |
|---|---|---:|
| ``norm`` | ``<gain>``: δ = γ_adapted − γ_base, fp32 | 140,544 bytes of δ |
| ``lora`` | ``<weight>.A``, ``<weight>.B``: δ = B · A, fp32, scale included | 4.9 MB |
| ``full`` | ``<weight>``: δ, fp16 | 269 MB |
| ``unigram`` | ``tokens`` int32, ``bias`` fp32 (nats) | 8 KB |

DESIGN §5 writes δ = γ − 1: the same where the base's gains are 1, as before training. A pretrained base has
others (SmolLM2-135M's have mean 0.29 and range from −2.1 to 3.3), so δ counts from the base's own gain: an
adapter of zeros is the base, always.

*Covered*: a truncated or foreign file, another base, missing or surplus tensors, wrong shapes, NaN and
infinity. *Not covered*: an adapter made to harm, with finite numbers of the right shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sharedllm.errors import BadAdapter
from sharedllm.store import atomic

__all__ = ["Adapter", "read", "write"]

_SCHEMA = "sharedllm-adapter/1"


@dataclass(frozen=True)
class Adapter:
    """What a method changed, relative to the base whose weights have the hash ``base_sha256``."""

    method: str
    base_sha256: str
    tensors: dict[str, Tensor]

    def __post_init__(self) -> None:
        for name, tensor in self.tensors.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise BadAdapter(
                    f"The {self.method} adapter holds NaN or infinity in {name}; its fit diverged. "
                    "Fit it again with a smaller learning rate."
                )

    @property
    def n_bytes(self) -> int:
        """The size of the tensors, without the file's header."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    @property
    def numbers(self) -> int:
        """How many numbers the adapter holds."""
        return sum(tensor.numel() for tensor in self.tensors.values())


def write(path: Path, adapter: Adapter) -> None:
    """Write an adapter to ``path``, atomically. Raises ``WriteFailed``."""
    metadata = {"schema": _SCHEMA, "method": adapter.method, "base_sha256": adapter.base_sha256}
    tensors = {name: tensor.contiguous() for name, tensor in adapter.tensors.items()}
    atomic.write_bytes(path, safetensors.torch.save(tensors, metadata))


def read(path: Path, base_sha256: str) -> Adapter:
    """Read the adapter at ``path`` for the base with that hash of weights.

    Raises ``BadAdapter`` for a file that is missing, damaged, no adapter, for another base, or holds NaN.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise BadAdapter(
            f"{path} is not a whole safetensors file ({error}); fetch or fit it again."
        ) from error
    if metadata.get("schema") != _SCHEMA or not {"method", "base_sha256"} <= metadata.keys():
        raise BadAdapter(f"{path} is no adapter: its schema is {metadata.get('schema')!r}, not {_SCHEMA!r}.")
    if metadata["base_sha256"] != base_sha256:
        raise BadAdapter(
            f"{path} adapts the base with weights {metadata['base_sha256'][:12]}…, and this one is "
            f"{base_sha256[:12]}…. Load the base it was fitted on, or fit it again on this one."
        )
    return Adapter(metadata["method"], base_sha256, tensors)
