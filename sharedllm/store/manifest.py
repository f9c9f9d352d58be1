"""A manifest says in < 4 KB what a model is: shape, hashes, licence, provenance; its hash names the model.

The form is RFC-0006's, in canonical JSON; ``store.specialists`` signs it. ``Source`` is the other side: a
model as somebody else's file holds it, before it is converted.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sharedllm.errors import BadModelFile
from sharedllm.model.config import Config
from sharedllm.store.cache import canonical_json, sha256_of

if TYPE_CHECKING:
    import torch

    from sharedllm.model.tokenizer import Tokenizer

__all__ = ["CEILING_BYTES", "SCHEMA", "AdapterBlob", "Manifest", "Source"]

SCHEMA = "sharedllm-manifest-1"
CEILING_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class AdapterBlob:
    """The adapter slot: a blob of ``size`` bytes that changes the weights by ``method``, norm or lora."""

    method: str
    sha256: str
    size: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a model is. ``sizes``: bytes of ``weights`` and ``tokenizer``; ``dtype``: that of the weights.

    ``adapter`` goes on the weights when the model is made live; None, and absent at rest, where there is
    none.
    """

    name: str
    config: Config
    tokenizer_sha256: str
    weights_sha256: str
    sizes: Mapping[str, int]
    dtype: str
    licence: str
    provenance: Mapping[str, Any]
    adapter: AdapterBlob | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as JSON values; ``from_dict`` reads them back."""
        whole = {**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, "schema": SCHEMA}
        whole["config"], whole["sizes"] = self.config.to_dict(), dict(self.sizes)
        whole["provenance"] = dict(self.provenance)
        if self.adapter is None:
            del whole["adapter"]
        else:
            whole["adapter"] = dataclasses.asdict(self.adapter)
        return whole

    @classmethod
    def from_dict(cls, whole: Mapping[str, Any], where: str) -> Manifest:
        """Read what ``to_dict`` gave; ``where`` names its origin in a ``BadModelFile``."""
        try:
            fields = dict(whole)
            if fields.pop("schema") != SCHEMA:
                raise ValueError(f"the schema is not {SCHEMA}")
            fields["config"] = Config.from_dict(fields["config"])
            if "adapter" in fields:
                fields["adapter"] = AdapterBlob(**fields["adapter"])
            manifest = cls(**fields)
            for key in ("weights", "tokenizer"):
                if not isinstance(manifest.sizes[key], int):
                    raise ValueError(f"the size of the {key} is not a number")
        except (ValueError, KeyError, TypeError, AttributeError, BadModelFile) as error:
            raise BadModelFile(
                f"{where} is not a model manifest ({error}); fetch or train the model again."
            ) from error
        return manifest

    def to_bytes(self) -> bytes:
        """Write the canonical form. Raises ``ValueError`` if it is 4 KB or more: provenance is a summary."""
        data = canonical_json(self.to_dict())
        if len(data) >= CEILING_BYTES:
            raise ValueError(
                f"The manifest of {self.name} has {len(data)} bytes, but must have < {CEILING_BYTES}."
            )
        return data

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Manifest:
        """Read what ``to_bytes`` wrote; ``where`` names its origin in a ``BadModelFile``."""
        try:
            if len(data) >= CEILING_BYTES:
                raise ValueError(f"it has {len(data)} bytes")
            whole = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadModelFile(
                f"{where} is not a model manifest ({error}); fetch or train the model again."
            ) from error
        return cls.from_dict(whole, where)

    @property
    def sha256(self) -> str:
        """The hash of the canonical form."""
        return sha256_of(self.to_bytes())


@dataclasses.dataclass(frozen=True)
class Source:
    """A model in a foreign file, checked but not yet read: our tensor names, and what reads each as fp32."""

    config: Config
    tokenizer: Tokenizer
    tensors: Mapping[str, tuple[tuple[int, ...], Callable[[], torch.Tensor]]]
    licence: str
    provenance: Mapping[str, Any]
