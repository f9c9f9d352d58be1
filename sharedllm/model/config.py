"""The shape of a model: twelve numbers that say everything about it except its weights.

One ``Config`` serves dense Llama-style models (``experts == 0``) and FractalMoE (``experts > 0``: each token
visits one of them). ``THIRTY_M_CONFIG`` and ``TOY_CONFIG`` are the FractalMoE regimes of the catalogue.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from sharedllm.errors import BadModelFile

__all__ = ["THIRTY_M_CONFIG", "TOY_CONFIG", "Config"]


@dataclasses.dataclass(frozen=True)
class Config:
    """A decoder's dimensions; ``width`` and ``heads · head_width`` may differ.

    ``hidden`` is the feed-forward width (of one expert, if there are any), ``rope_base`` the base of the
    rotary frequencies, ``context`` the longest sequence in tokens, ``tied_head`` says that the output head is
    the embedding. Raises ``BadModelFile`` when the numbers contradict each other.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    experts: int = 0
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5
    context: int = 1024
    tied_head: bool = True

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kinds: dict[str, tuple[type, ...]] = {"float": (float, int), "int": (int,), "bool": (bool,)}
            if type(value) not in kinds[str(field.type)]:
                raise BadModelFile(
                    f"The model's {field.name} is {value!r}; expected {field.type}. "
                    "Check the model file's configuration."
                )
            least = 0 if field.name in {"experts", "tied_head"} else 1
            if field.type != "float" and value < least:
                raise BadModelFile(
                    f"The model's {field.name} is {value}; expected at least {least}. "
                    "Check the model file's configuration."
                )
        if self.heads % self.kv_heads:
            raise BadModelFile(
                f"{self.heads} heads can't share {self.kv_heads} key/value heads evenly; expected a divisor. "
                "Check the model file's configuration."
            )
        if self.head_width % 2:
            raise BadModelFile(
                f"Rotary positions turn pairs of numbers, so a head's width must be even; it is "
                f"{self.head_width}. Check the model file's configuration."
            )
        if not (math.isfinite(self.rope_base) and self.rope_base > 1 and 0 < self.norm_eps < 1):
            raise BadModelFile(
                f"rope_base {self.rope_base} or norm_eps {self.norm_eps} is out of range; expected a finite "
                "base above 1 and an epsilon between 0 and 1. Check the model file's configuration."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values; ``from_dict`` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Config:
        """Read ``to_dict``'s form. Raises ``BadModelFile`` for an unknown, missing or wrongly typed field."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown, missing = sorted(set(fields) - known), sorted(known - set(fields))
        if unknown or missing:
            raise BadModelFile(
                f"A model configuration has unknown fields {unknown} and lacks {missing}; expected exactly "
                f"{', '.join(sorted(known))}."
            )
        return cls(**fields)


THIRTY_M_CONFIG = Config(
    vocab_size=8192, width=256, layers=4, heads=4, kv_heads=4, head_width=64, hidden=704, experts=16
)
TOY_CONFIG = Config(
    vocab_size=4096, width=128, layers=4, heads=4, kv_heads=4, head_width=32, hidden=96, experts=16
)
