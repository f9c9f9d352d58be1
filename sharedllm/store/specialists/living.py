"""From a signed manifest and its blobs alone to a live model, with no code per specialist; and back again.

*Covered*: every byte of every blob is read and hashed before it is used, sizes first; tensors that don't fit
the configuration (before they are multiplied out); NaN and infinity. *Not covered*: a blob that is changed
while it is mapped; a signer who names a tokenizer that fits the vocabulary but is not the one the weights
were trained with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharedllm.errors import BadModelFile
from sharedllm.model.transformer import Transformer
from sharedllm.store import conversion, safetensors
from sharedllm.store.blobs import Blobs
from sharedllm.store.conversion import Loaded, refuse_nan
from sharedllm.store.manifest import AdapterBlob, Manifest
from sharedllm.store.specialists.signed import METHODS, Signed

__all__ = ["deltas", "live", "with_adapter"]


def live(signed: Signed) -> Loaded:
    """Make the model live, in fp32, its adapter applied: bit for bit what was built before it was kept.

    Raises ``BadModelFile`` for a blob that is missing, cut short, changed, or not what the manifest says.
    """
    body = signed.body
    _verify(signed)
    loaded = conversion.opened(dataclasses.replace(body, adapter=None))
    parameters = dict(loaded.model.named_parameters())
    for name, parameter in parameters.items():
        refuse_nan(name, parameter, body.name)
    for name, delta in _deltas(signed, loaded.model).items():
        parameters[name].data = parameters[name].data + delta
    return dataclasses.replace(loaded, manifest=body)


def deltas(signed: Signed) -> dict[str, Tensor]:
    """Return what the adapter adds to which weight of its base, fp32; nothing where there is no adapter.

    Reads the adapter's blob alone. Raises ``BadModelFile`` as ``live`` does.
    """
    adapter = signed.body.adapter
    if adapter is None:
        return {}
    _verify_blob(adapter.sha256, adapter.size, signed.body.name)
    with torch.device("meta"):
        model = Transformer(signed.body.config)
    return _deltas(signed, model)


def with_adapter(
    name: str, base: Manifest, method: str, path: Path, *, provenance: Mapping[str, Any]
) -> Manifest:
    """Store the adapter file at ``path`` and describe ``base`` wearing it; the licence is the base's."""
    blobs = Blobs()
    sha256 = blobs.put_file(path)
    slot = AdapterBlob(method, sha256, blobs.path(sha256).stat().st_size)
    return dataclasses.replace(base, name=name, provenance=provenance, adapter=slot)


def _verify(signed: Signed) -> None:
    # the small ones first: what is refused is refused before gigabytes are read
    for sha256, size in sorted(signed.blobs.items(), key=lambda blob: blob[1]):
        _verify_blob(sha256, size, signed.body.name)


def _verify_blob(sha256: str, size: int, where: str) -> None:
    path = Blobs().path(sha256)
    found = path.stat().st_size if path.is_file() else None
    if found is not None and found != size:
        raise BadModelFile(
            f"{where} can't be loaded: the blob {path} has {found} bytes, and its manifest says {size}. "
            "Delete that file, then fetch or train the specialist again."
        )
    Blobs().verify(sha256)


def _deltas(signed: Signed, model: Transformer) -> dict[str, Tensor]:
    adapter, where = signed.body.adapter, signed.body.name
    if adapter is None:
        return {}
    if adapter.method not in METHODS:
        raise BadModelFile(f"{where} has an adapter of method {adapter.method!r}, not norm or lora.")
    tensors = safetensors.read_tensors(Blobs().hold(adapter.sha256))
    for name, tensor in tensors.items():
        refuse_nan(name, tensor, where)
    floats = {name: tensor.float() for name, tensor in tensors.items()}
    lora = adapter.method == "lora"
    shapes = _products(floats, where) if lora else {name: delta.shape for name, delta in floats.items()}
    weights = dict(model.named_parameters())
    odd = set(shapes) - set(weights) if lora else set(shapes) ^ set(model.gains())
    if odd:
        raise BadModelFile(
            f"The {adapter.method} adapter of {where} does not belong to its base: {min(odd)} is missing or "
            "not one of its weights. Fetch or train it again."
        )
    for name, shape in shapes.items():
        if shape != weights[name].shape:
            raise BadModelFile(
                f"The adapter of {where} changes {name} by {tuple(shape)}, but the base's has "
                f"{tuple(weights[name].shape)}. Fetch or train it again."
            )
    return {name: floats[f"{name}.B"] @ floats[f"{name}.A"] for name in shapes} if lora else floats


def _products(tensors: Mapping[str, Tensor], where: str) -> dict[str, torch.Size]:
    """The shape of B @ A per weight of a lora file; of two thin factors the product may be huge."""
    names = {name.rpartition(".")[0] for name in tensors}
    if set(tensors) != {f"{name}.{factor}" for name in names for factor in "AB"}:
        raise BadModelFile(f"The lora adapter of {where} lacks an A or a B. Fetch or train it again.")
    try:
        return {
            name: (tensors[f"{name}.B"].to("meta") @ tensors[f"{name}.A"].to("meta")).shape
            for name in sorted(names)
        }
    except RuntimeError as error:
        raise BadModelFile(
            f"A and B of the adapter of {where} don't multiply ({error}). Fetch or train it again."
        ) from error
