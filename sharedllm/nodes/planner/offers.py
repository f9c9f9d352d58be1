"""What a plan is made of: nodes' figures, the model's, the links', and what is wanted. Nothing else is asked.

Everything checks itself when it is made: zero, negative, infinite and NaN figures raise ``BadFigures`` with a
sentence. Two zeros are meant: a node without free memory is full, not wrong, and a round trip may be 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sharedllm.errors import SharedLLMError

__all__ = ["PRIMARY", "BadFigures", "Links", "ModelShape", "NodeOffer", "Objective"]

PRIMARY = "primary"  # the key of the primary in a node's ``rtt_s``
MAX_LAYERS = 1024  # the search takes memory in proportion to it


class BadFigures(SharedLLMError):
    """A node, a model, a link or a wish is described by figures that no plan can be made of."""


def _positive(what: str, name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise BadFigures(
            f"{what} has {name} = {value}; it must be a finite number above 0. Measure it again."
        )


def _not_negative(what: str, name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise BadFigures(f"{what} has {name} = {value}; it must be a finite number, 0 or more.")


@dataclass(frozen=True)
class NodeOffer:
    """What one worker offers at this moment.

    ``memory_bytes`` is free for weights and cache; ``s_per_layer`` is the measured time of one layer for one
    token, already divided by the node's share of time; ``host`` names the machine ("" if unknown); ``rtt_s``
    are measured round trips by node id or ``"primary"``; ``trusted`` is False for a node that may not see
    this person's activations; ``name`` is for sentences. Raises ``BadFigures``.
    """

    id: str
    memory_bytes: int
    s_per_layer: float
    host: str = ""
    rtt_s: Mapping[str, float] = field(default_factory=dict)
    bandwidth_bytes_per_s: float = 125e6
    trusted: bool = True
    name: str = ""

    def __post_init__(self) -> None:
        if not self.id or self.id == PRIMARY:
            raise BadFigures(
                f'A node is called {self.id!r}; give its id, which is not empty and not "{PRIMARY}".'
            )
        what = f"Node {self.label}"
        _not_negative(what, "memory_bytes", self.memory_bytes)
        _positive(what, "s_per_layer", self.s_per_layer)
        _positive(what, "bandwidth_bytes_per_s", self.bandwidth_bytes_per_s)
        for other, rtt_s in self.rtt_s.items():
            _not_negative(what, f"rtt_s to {other}", rtt_s)

    @property
    def label(self) -> str:
        """What people call it: its name, or the beginning of its id."""
        return self.name or self.id[:8]


@dataclass(frozen=True)
class ModelShape:
    """The layers to be placed: their number, size, and what each needs for the tokens that were asked for.

    ``activation_bytes`` is one token's hidden state on the wire. Raises ``BadFigures``.
    """

    hash: str
    layers: int
    layer_bytes: int
    cache_bytes_per_layer: int
    width: int
    activation_bytes: int

    def __post_init__(self) -> None:
        what = f"Model {self.hash[:8]}"
        for name in ("layers", "layer_bytes", "width", "activation_bytes"):
            _positive(what, name, getattr(self, name))
        _not_negative(what, "cache_bytes_per_layer", self.cache_bytes_per_layer)
        if self.layers > MAX_LAYERS:
            raise BadFigures(f"{what} has {self.layers} layers; at most {MAX_LAYERS} can be planned.")

    @property
    def bytes_per_layer(self) -> int:
        """The memory that a node needs for each layer it takes."""
        return self.layer_bytes + self.cache_bytes_per_layer


@dataclass(frozen=True)
class Objective:
    """What is wanted of a plan.

    ``fastest``: the least time per token of one stream; it chooses how many nodes. ``spread``: ``nodes``
    workers (None: all) whose slowest stage is as fast as can be, so that several streams keep all of them
    busy. ``banned`` ids take no part. Raises ``BadFigures``.
    """

    kind: Literal["fastest", "spread"] = "fastest"
    nodes: int | None = None
    banned: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.kind not in ("fastest", "spread"):
            raise BadFigures(f'The objective is {self.kind!r}; it is "fastest" or "spread".')
        if self.kind == "fastest" and self.nodes is not None:
            raise BadFigures(
                f'The objective "fastest" was given nodes = {self.nodes}, but it chooses how many itself; '
                'leave nodes out, or ask for "spread".'
            )
        if self.nodes is not None and self.nodes < 1:
            raise BadFigures(f"A pipeline over {self.nodes} workers was asked for; ask for 1 or more.")


@dataclass(frozen=True)
class Links:
    """What a hop costs where nothing was measured, and what software adds to each. Raises ``BadFigures``.

    ``software_s`` is the time that both ends spend on one hop beyond the network's own.
    """

    default_rtt_s: float = 0.003
    same_host_rtt_s: float = 0.0001
    software_s: float = 0.0002

    def __post_init__(self) -> None:
        for name in ("default_rtt_s", "same_host_rtt_s", "software_s"):
            _not_negative("The links", name, getattr(self, name))
