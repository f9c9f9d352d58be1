"""An adapter at rest: a safetensors file that names its base by hash, and is refused by every other base.

Metadata: ``schema``, ``method``, ``base_sha256`` (of the base's weights), and where they say something
``precision`` and ``about`` (canonical JSON). Tensors, by method:

| method | tensors | as fitted | fp16 | int8, on SmolLM2-135M |
|---|---|---:|---:|---:|
| ``norm`` | ``<gain>``: δ = γ_adapted − γ_base, fp32 | 140,544 | 70,272 | 35,380 bytes |
| ``norm+bias`` | the same, and ``<norm>.bias``: β, fp32 | 281,088 | 140,544 | 70,760 |
| ``lora`` | ``<weight>.A``, ``<weight>.B``: δ = B · A, fp32, scale included | 4.9 MB | 2.4 MB | 2.5 MB |
| ``full`` | ``<weight>``: δ, fp16 | 269 MB | 269 MB | 135 MB |
| ``unigram`` | ``tokens`` int32, ``bias`` fp32 (nats) | 8,000 | 6,000 | 5,004 |

``fp32`` keeps what the fit made, bit for bit (``full`` is fp16 by itself). ``int8`` rounds each vector (the
last dimension) to 127 steps of its own scale, kept as ``<name>.scale``: an error of at most half a step.
What a precision costs in nats is measured, never assumed: see ``personal``.

DESIGN §5 writes δ = γ − 1: the same where the base's gains are 1, as before training. A pretrained base has
others (SmolLM2-135M's have mean 0.29 and range from −2.1 to 3.3), so δ counts from the base's own gain: an
adapter of zeros is the base, always.

*Covered*: a truncated or foreign file, another base, an unknown precision, types and scales that don't fit
it, NaN and infinity; missing or surplus tensors and wrong shapes, by ``applied``. *Not covered*: an adapter
made to harm, with finite numbers of the right shape.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sharedllm.errors import BadAdapter
from sharedllm.store import atomic, canonical_json

__all__ = ["AT_REST", "Adapter", "Header", "header", "read", "rounded", "write"]

AT_REST = ("fp32", "fp16", "int8")
_SCHEMA = "sharedllm-adapter/1"
_TYPES = {"fp32": {torch.float32, torch.float16}, "fp16": {torch.float16}, "int8": {torch.int8}}
_ABOUT_CEILING_BYTES = 1 << 16
_SCALE = ".scale"


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


@dataclass(frozen=True)
class Header:
    """What a file says of itself; ``about`` is what its maker wrote beside the numbers, in JSON values."""

    method: str
    base_sha256: str
    precision: str
    n_bytes: int
    about: Mapping[str, Any] = field(repr=False)


def write(
    path: Path, adapter: Adapter, precision: str = "fp32", about: Mapping[str, Any] | None = None
) -> None:
    """Write an adapter to ``path``, atomically.

    Raises ``BadAdapter`` for an unknown precision or a number beyond it, ``WriteFailed``.
    """
    metadata = {"schema": _SCHEMA, "method": adapter.method, "base_sha256": adapter.base_sha256}
    if precision != "fp32":
        metadata["precision"] = precision
    if about:
        metadata["about"] = canonical_json(dict(about)).decode()
    tensors = _encoded(adapter, precision)
    atomic.write_bytes(path, _always_alike(safetensors.torch.save(tensors, metadata)))


def _always_alike(data: bytes) -> bytes:
    """Put the header in one order: the library's differs from run to run, and files are named by hash."""
    (length,) = struct.unpack("<Q", data[:8])
    header = canonical_json(json.loads(data[8 : 8 + length]))
    header += b" " * (-len(header) % 8)  # as the library aligns it
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def read(path: Path, base_sha256: str) -> Adapter:
    """Read the adapter at ``path`` for the base with that hash of weights.

    Raises ``BadAdapter`` for a file that is missing, damaged, no adapter, for another base, or holds NaN.
    """
    said = header(path)
    if said.base_sha256 != base_sha256:
        raise BadAdapter(
            f"{path} adapts the base with weights {said.base_sha256[:12]}…, and this one is "
            f"{base_sha256[:12]}…. Load the base it was fitted on, or fit it again on this one."
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from error
    return Adapter(said.method, base_sha256, _decoded(path, tensors, said.precision))


def header(path: Path) -> Header:
    """Read what the file says of itself, and none of its numbers. Raises ``BadAdapter``."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
        n_bytes = path.stat().st_size
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from error
    if metadata.get("schema") != _SCHEMA or not {"method", "base_sha256"} <= metadata.keys():
        raise BadAdapter(f"{path} is no adapter: its schema is {metadata.get('schema')!r}, not {_SCHEMA!r}.")
    precision = metadata.get("precision", "fp32")
    _known(precision, str(path))
    try:
        written = metadata.get("about", "{}")
        about = json.loads(written) if len(written) <= _ABOUT_CEILING_BYTES else None
        if not isinstance(about, dict):
            raise ValueError(f"its description of {len(written)} bytes is not one")
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    return Header(metadata["method"], metadata["base_sha256"], precision, n_bytes, about)


def rounded(adapter: Adapter, precision: str) -> Adapter:
    """Give what whoever reads the file gets: ``read(write(adapter, precision))`` without the file.

    Raises ``BadAdapter`` for an unknown precision or a number beyond it.
    """
    where = f"The {adapter.method} adapter"
    tensors = _decoded(where, _encoded(adapter, precision), precision)
    return Adapter(adapter.method, adapter.base_sha256, tensors)


def _encoded(adapter: Adapter, precision: str) -> dict[str, Tensor]:
    _known(precision, "an adapter")
    tensors: dict[str, Tensor] = {}
    for name, tensor in adapter.tensors.items():
        if not tensor.is_floating_point() or precision == "fp32":
            tensors[name] = tensor.contiguous()
        elif precision == "fp16":
            tensors[name] = _halved(name, tensor)
        else:
            tensors[name], tensors[name + _SCALE] = _stepped(tensor.float())
    return tensors


def _halved(name: str, tensor: Tensor) -> Tensor:
    half = tensor.to(torch.float16).contiguous()
    if not bool(half.isfinite().all()):
        raise BadAdapter(
            f"{name} holds {float(tensor.abs().max()):.3g}, and fp16 ends at 65,504; keep the adapter as "
            "fp32 or int8."
        )
    return half


def _stepped(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round each vector to int8 steps of its own scale: the steps, and ``scale[…, 1]``."""
    largest = x.abs().amax(-1, keepdim=True) if x.numel() else x.new_zeros((*x.shape[:-1], 1))
    scale = (largest / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return (x / scale).round().clamp(-127, 127).to(torch.int8).contiguous(), scale


def _decoded(where: Path | str, tensors: dict[str, Tensor], precision: str) -> dict[str, Tensor]:
    """Turn tensors at rest into an adapter's: int8 and fp16 become fp32, except what the fit made fp16."""
    decoded: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if precision == "int8" and name.endswith(_SCALE):
            if name.removesuffix(_SCALE) not in tensors:
                raise BadAdapter(f"{where} holds {name} without the steps that it scales; fit it again.")
            continue
        if tensor.dtype not in _TYPES[precision] | {torch.int32}:
            raise BadAdapter(f"{where} says that it is {precision}, but {name} is {tensor.dtype}.")
        if tensor.dtype == torch.int8:
            tensor = tensor.float() * _scale_of(where, name, tensors)
        elif precision == "fp16" and tensor.is_floating_point():
            tensor = tensor.float()
        decoded[name] = tensor
    return decoded


def _scale_of(where: Path | str, name: str, tensors: dict[str, Tensor]) -> Tensor:
    scale, expected = tensors.get(name + _SCALE), (*tensors[name].shape[:-1], 1)
    if scale is None or scale.dtype != torch.float32 or tuple(scale.shape) != expected:
        raise BadAdapter(f"{where} holds {name} in int8 without one fp32 scale per vector; fit it again.")
    return scale


def _known(precision: str, where: str) -> None:
    if precision not in AT_REST:
        raise BadAdapter(
            f"There is no precision {precision!r} for {where}; expected one of: {', '.join(AT_REST)}."
        )


def _damaged(path: Path, error: Exception) -> BadAdapter:
    return BadAdapter(f"{path} is not a whole safetensors file ({error}); fetch or fit it again.")
