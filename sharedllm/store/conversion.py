"""Between a foreign model and a live one: ``keep`` checks and stores its tensors, ``opened`` maps them.

Weights become safetensors in the blob store, under their hash, and every tensor is checked on the way: its
name, its shape, and that all its numbers are finite. ``opened`` copies, dequantises and hashes nothing.

*Covered*: blobs that are missing or cut short, tensors that don't fit the configuration. *Not covered*: bits
that flip in a blob at rest; ``zoo.verify`` reads them all.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch.overrides import TorchFunctionMode

from sharedllm.errors import BadModelFile
from sharedllm.model.config import Config
from sharedllm.model.tokenizer import Tokenizer
from sharedllm.model.transformer import Span, Transformer
from sharedllm.store import safetensors, ternary
from sharedllm.store.blobs import Blobs, Sink
from sharedllm.store.manifest import Manifest, Source
from sharedllm.store.packages import Progress

__all__ = [
    "Loaded",
    "described",
    "empty",
    "is_whole",
    "keep",
    "keep_model",
    "opened",
    "opened_ternary",
    "opened_tokenizer",
    "refuse_nan",
]


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A live model in evaluation mode, its tokenizer, and the manifest that says what it is."""

    model: Transformer
    tokenizer: Tokenizer
    manifest: Manifest


def keep(name: str, source: Source, dtype: torch.dtype, progress: Progress | None = None) -> Manifest:
    """Store the tensors of ``source`` as ``dtype``, and its tokenizer; return the manifest.

    One tensor is in memory at a time. Raises ``BadModelFile`` or ``WriteFailed``, leaving nothing.
    """
    shapes = {key: shape for key, (shape, _) in source.tensors.items()}
    empty(source.config, shapes, name)
    if source.tokenizer.vocab_size > source.config.vocab_size:
        raise BadModelFile(
            f"{name} has a tokenizer of {source.tokenizer.vocab_size} tokens, but embeddings for "
            f"{source.config.vocab_size}; its files don't belong together."
        )
    total = sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize

    def tensors() -> Iterator[torch.Tensor]:
        done = 0
        for key, (_, read) in source.tensors.items():
            tensor = read().to(dtype)
            refuse_nan(key, tensor, name)
            yield tensor
            done += tensor.numel() * dtype.itemsize
            if progress is not None:
                progress(f"Converting {name}", done, total)

    def write(sink: Sink) -> None:
        safetensors.write(sink, {key: (dtype, shape) for key, shape in shapes.items()}, tensors())

    blobs = Blobs()
    weights, tokenizer = blobs.put(write), blobs.put_bytes(source.tokenizer.to_bytes())
    hashes = {"weights": weights, "tokenizer": tokenizer}
    kind = str(dtype).removeprefix("torch.")
    return described(name, source.config, hashes, kind, source.licence, source.provenance)


def described(
    name: str,
    config: Config,
    hashes: Mapping[str, str],
    dtype: str,
    licence: str,
    provenance: Mapping[str, Any],
) -> Manifest:
    """The manifest of two blobs that are in the store: ``hashes`` of ``weights`` and ``tokenizer``."""
    return Manifest(
        name=name,
        config=config,
        tokenizer_sha256=hashes["tokenizer"],
        weights_sha256=hashes["weights"],
        sizes={kind: Blobs().path(sha256).stat().st_size for kind, sha256 in hashes.items()},
        dtype=dtype,
        licence=licence,
        provenance=provenance,
    )


def keep_model(
    name: str,
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    licence: str,
    provenance: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> Manifest:
    """Store a model's blobs and describe them, under no name yet; raises what ``keep`` raises."""
    tensors = {
        key: (tuple(tensor.shape), functools.partial(_at_rest, tensor))
        for key, tensor in model.state_dict().items()
    }
    return keep(name, Source(model.config, tokenizer, tensors, licence, provenance), dtype)


def is_whole(manifest: Manifest) -> bool:
    """Say whether both blobs are in the store, with the sizes that the manifest states."""
    return not _faults(manifest)


def opened(manifest: Manifest) -> Loaded:
    """Make the model live, in fp32: built without memory of its own, then given the mapped tensors.

    Raises ``BadModelFile`` if a blob is missing, cut short, or not what the manifest says.
    """
    weights = _mapped(manifest)
    model = empty(manifest.config, weights.shapes, manifest.name)
    model.load_state_dict({name: weights.restored(name) for name in weights.shapes}, assign=True)
    return Loaded(model.eval(), opened_tokenizer(manifest), manifest)


def opened_tokenizer(manifest: Manifest) -> Tokenizer:
    """The tokenizer alone; raises ``BadModelFile`` if its blob is no tokenizer."""
    return Tokenizer.from_bytes(Blobs().path(manifest.tokenizer_sha256).read_bytes())


def opened_span(manifest: Manifest, start: int, stop: int) -> Span:
    """Layers ``[start, stop)`` alone, in fp32, mapped: nothing else of the file is read.

    Raises what ``opened`` raises, and ``ValueError`` for a range that the model does not have.
    """
    with torch.device("meta"), _Undrawn():
        span = Span(manifest.config, start, stop)
    shapes = {name: tuple(tensor.shape) for name, tensor in span.state_dict().items()}
    span.load_state_dict(_chosen(manifest, shapes), assign=True)
    return span.eval()


def opened_ends(manifest: Manifest) -> dict[str, torch.Tensor]:
    """What is no layer: ``embed.weight``, ``norm.weight``, and ``head.weight`` unless it is the embedding.

    Raises what ``opened`` raises.
    """
    table = (manifest.config.vocab_size, manifest.config.width)
    shapes = {"embed.weight": table, "norm.weight": table[1:]}
    if not manifest.config.tied_head:
        shapes["head.weight"] = table
    return _chosen(manifest, shapes)


def opened_ternary(manifest: Manifest, shapes: Mapping[str, tuple[int, ...]]) -> ternary.Opened:
    """The file of a ternary model, which has weights of these shapes: for engines that don't restore them.

    Raises what ``opened`` raises.
    """
    weights = _mapped(manifest)
    if not isinstance(weights, ternary.Opened):
        raise BadModelFile(f"{manifest.name} is no ternary model; its weights are {manifest.dtype}.")
    _refuse_misfits(manifest, weights.shapes, shapes)
    return weights


def _chosen(manifest: Manifest, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The tensors of these names, in fp32. Raises ``BadModelFile`` for one that is missing or misshapen."""
    weights = _mapped(manifest)
    _refuse_misfits(manifest, weights.shapes, shapes)
    return {name: weights.restored(name) for name in shapes}


def _refuse_misfits(
    manifest: Manifest, there: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    for name, expected in shapes.items():
        if name not in there:
            raise BadModelFile(f"{manifest.name} holds no {name}. Fetch or train the model again.")
        if there[name] != expected:
            raise BadModelFile(
                f"Tensor {name} of {manifest.name} has the shape {there[name]}, but its "
                f"configuration says {expected}. Fetch or train the model again."
            )


class _Weights(Protocol):
    """The shapes of a file's weights, and each in fp32 when it is asked for."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def restored(self, name: str) -> torch.Tensor: ...


class _Plain:
    """``_Weights`` of a file that holds them as they are; fp32 ones stay mapped."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self._tensors = tensors

    def restored(self, name: str) -> torch.Tensor:
        return self._tensors[name].float()


def _mapped(manifest: Manifest) -> _Weights:
    faults = _faults(manifest)
    if faults:
        raise BadModelFile(f"{manifest.name} can't be loaded: {faults[0]} Fetch or train the model again.")
    path = Blobs().hold(manifest.weights_sha256)
    return ternary.read(path) if manifest.dtype == ternary.DTYPE else _Plain(safetensors.read_tensors(path))


def refuse_nan(name: str, tensor: torch.Tensor, where: str) -> None:
    """Raise ``BadModelFile`` if ``tensor`` holds NaN or infinity."""
    if not bool(tensor.isfinite().all()):
        raise BadModelFile(
            f"Tensor {name} of {where} holds NaN or infinity as {tensor.dtype}; the model is damaged. "
            "Download or train it again."
        )


def _at_rest(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu()


def _faults(manifest: Manifest) -> list[str]:
    faults = []
    for kind, sha256 in (("weights", manifest.weights_sha256), ("tokenizer", manifest.tokenizer_sha256)):
        path, expected = Blobs().path(sha256), manifest.sizes[kind]
        if not path.is_file():
            faults.append(f"the blob of its {kind}, {path}, is missing.")
        elif path.stat().st_size != expected:
            faults.append(f"the blob of its {kind}, {path}, has {path.stat().st_size} bytes, not {expected}.")
    return faults


def empty(config: Config, shapes: Mapping[str, tuple[int, ...]], where: str) -> Transformer:
    """Build the model without memory, once the tensors are known to be those that it has places for."""
    if config.layers > len(shapes):
        raise BadModelFile(
            f"{where} announces {config.layers} layers, but holds only {len(shapes)} tensors. "
            "Download or train the model again."
        )
    with torch.device("meta"), _Undrawn():
        model = Transformer(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing, spare = sorted(expected.keys() - shapes.keys()), sorted(shapes.keys() - expected.keys())
    if missing or spare:
        raise BadModelFile(
            f"{where} does not hold the tensors of its configuration: missing {_few(missing)}; "
            f"unexpected {_few(spare)}. Download or train the model again."
        )
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise BadModelFile(
                f"Tensor {name} of {where} has the shape {shapes[name]}, but its configuration says "
                f"{shape}. Download or train the model again."
            )
    return model


class _Undrawn(TorchFunctionMode):
    """Draw no initial weights, since they are replaced: on meta tensors that costs 0.9 s of imports."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return args[0] if func is torch.Tensor.normal_ else func(*args, **(kwargs or {}))


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) or "none") + more
