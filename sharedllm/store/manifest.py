"""A manifest says in < 4 KB what a model is: shape, hashes, licence, provenance; its hash names the model.

The form is RFC-0006's, in canonical JSON; the signature comes with the network. ``Source`` is the other
side: a model as somebody else's file holds it, before it is converted.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch

from sharedllm.errors import BadModelFile
from sharedllm.model.config import Config
from sharedllm.model.tokenizer import Tokenizer
from sharedllm.store.cache import canonical_json, sha256_of

__all__ = ["SCHEMA", "Manifest", "Source"]

SCHEMA = "sharedllm-manifest-1"
_CEILING_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a model is. ``sizes``: bytes of ``weights`` and ``tokenizer``; ``dtype``: that of the weights."""

    name: str
    config: Config
    tokenizer_sha256: str
    weights_sha256: str
    sizes: Mapping[str, int]
    dtype: str
    licence: str
    provenance: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """Write the canonical form. Raises ``ValueError`` if it is 4 KB or more: provenance is a summary."""
        whole = {**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, "schema": SCHEMA}
        whole["config"], whole["sizes"] = self.config.to_dict(), dict(self.sizes)
        whole["provenance"] = dict(self.provenance)
        data = canonical_json(whole)
        if len(data) >= _CEILING_BYTES:
            raise ValueError(
                f"The manifest of {self.name} has {len(data)} bytes, but must have < {_CEILING_BYTES}."
            )
        return data

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Manifest:
        """Read what ``to_bytes`` wrote; ``where`` names its origin in a ``BadModelFile``."""
        try:
            whole = json.loads(data)
            if len(data) >= _CEILING_BYTES or whole.pop("schema") != SCHEMA:
                raise ValueError(f"the schema is not {SCHEMA}")
            whole["config"] = Config.from_dict(whole["config"])
            manifest = cls(**whole)
            for key in ("weights", "tokenizer"):
                if not isinstance(manifest.sizes[key], int):
                    raise ValueError(f"the size of the {key} is not a number")
        except (ValueError, KeyError, TypeError, AttributeError, BadModelFile) as error:
            raise BadModelFile(
                f"{where} is not a model manifest ({error}); fetch or train the model again."
            ) from error
        return manifest

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
