"""What may be said to the coordinator: strict types, unknown fields refused, every list and number bounded.

Every field is bounded here, so that nothing behind the routes has to ask again whether a number is finite or
a list is short. A refused body becomes one sentence (``sentence``) that names the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from sharedllm.nodes.errors import DialFailed
from sharedllm.nodes.proxy import Endpoint

__all__ = [
    "HeartbeatReply",
    "JoinRequest",
    "ModelRequest",
    "NodeReport",
    "Nothing",
    "ObjectiveRequest",
    "PipelineReport",
    "PipelineRequest",
    "RenewRequest",
    "sentence",
]

_MAX_NODES = 1_024
_PETABYTE = 10**15
_DAY_S = 86_400.0

NodeId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# Printable and on one line: a name is shown in other people's terminals
Name = Annotated[str, StringConstraints(pattern=r"^[\w][\w .:@+-]{0,62}$")]
Text = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]
Bytes = Annotated[int, Field(ge=0, le=_PETABYTE)]
Seconds = Annotated[float, Field(ge=0, le=_DAY_S, allow_inf_nan=False)]
Speed = Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Nothing(_Strict):
    """An empty object: the caller's certificate says all."""


class JoinRequest(_Strict):
    """A token's id and secret, and the public key and name of the machine that holds it."""

    token_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    secret: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    public_key: Hash
    role: Literal["primary", "worker", "operator"]
    name: Name


class RenewRequest(_Strict):
    """Empty under a valid certificate; under none, a fresh proof of the key whose certificate expired."""

    public_key: Hash | None = None
    at: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")] | None = None


class _Endpoint(_Strict):
    kind: Literal["lan", "wan", "relay"]
    host: Annotated[str, StringConstraints(max_length=253)]
    port: int
    relay: NodeId | None = None

    @model_validator(mode="after")
    def _is_an_address(self) -> _Endpoint:
        try:
            Endpoint.from_dict(self.model_dump())
        except DialFailed as error:
            raise ValueError(str(error)) from None
        return self


class _Traffic(_Strict):
    in_bytes: Bytes = 0
    out_bytes: Bytes = 0


class _Audit(_Strict):
    key: Hash
    size: Annotated[int, Field(ge=0, le=_PETABYTE)]
    unaudited: Annotated[int, Field(ge=0, le=_PETABYTE)]


class NodeReport(_Strict):
    """What a node says of itself with every heartbeat.

    ``memory_bytes`` is all that it gives to weights and caches, not what is left of it: the coordinator
    subtracts what it promised to pipelines. ``models`` are the weights in its store; None: it gets what it
    lacks. ``started`` is the node's own clock; a newer one lifts a ban. ``audit`` is a primary's log: the key
    that its receipts are verified with, its entries, and answers that are not in it.
    """

    name: Name
    role: Literal["primary", "worker"]
    host: Annotated[str, StringConstraints(max_length=128)] = ""
    started: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
    endpoints: Annotated[list[_Endpoint], Field(max_length=16)] = []
    memory_bytes: Bytes = 0
    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    models: Annotated[list[Hash], Field(max_length=64)] | None = None
    read_bytes_per_s: Rate = 0.0
    rtt_s: Annotated[dict[NodeId, Seconds], Field(max_length=_MAX_NODES)] = {}
    bandwidth_bytes_per_s: Rate = 0.0
    relay_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    sessions: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    kv_bytes: Bytes = 0
    weights_bytes: Bytes = 0
    traffic: _Traffic = _Traffic()
    url: Annotated[str, StringConstraints(max_length=256, pattern=r"^https?://[^\s\x00-\x20]+$")] | None = (
        None
    )
    draining: bool = False
    version: Annotated[str, StringConstraints(max_length=64)] = ""
    audit: _Audit | None = None


class ModelRequest(_Strict):
    """The model that wants a home: its layers, and what each costs in bytes."""

    name: Annotated[str, StringConstraints(max_length=128)]
    hash: Hash
    layers: Annotated[int, Field(ge=1, le=1_000)]
    layer_bytes: Annotated[int, Field(ge=1, le=_PETABYTE)]
    cache_bytes_per_layer: Bytes
    width: Annotated[int, Field(ge=1, le=1_000_000)]
    activation_bytes: Annotated[int, Field(ge=1, le=2**30)]


class ObjectiveRequest(_Strict):
    """``fastest`` fits first and splits last; ``spread`` uses exactly ``nodes``, or all."""

    kind: Literal["fastest", "spread"] = "fastest"
    nodes: Annotated[int, Field(ge=1, le=_MAX_NODES)] | None = None

    @model_validator(mode="after")
    def _agree(self) -> ObjectiveRequest:
        if self.kind == "fastest" and self.nodes is not None:
            raise ValueError("nodes is for kind spread; fastest chooses how many itself")
        return self


class PipelineRequest(_Strict):
    """A primary's wish for a pipeline; ``replaces`` is the one that it gives up for it.

    ``dry``: only say what would be planned; nothing is registered, and no ticket is issued.
    """

    model: ModelRequest
    objective: ObjectiveRequest = ObjectiveRequest()
    banned: Annotated[list[NodeId], Field(max_length=_MAX_NODES)] = []
    replaces: NodeId | None = None
    trusted: Annotated[list[NodeId], Field(max_length=_MAX_NODES)] | None = None
    dry: bool = False


class PipelineReport(_Strict):
    """How a pipeline does, or what went wrong in it.

    ``speeds``: seconds per layer that each worker computed (waiting excluded); ``hops_ms``: milliseconds on
    the way into each node; ``tokens``: generated since the last report; ``token_s``: measured seconds per
    token of one stream; ``floor_s``: what it would be at best, as the primary measured its parts.
    """

    worker: NodeId | None = None
    kind: Literal["dead", "frozen", "slow", "garbage", "ok"]
    detail: Text = ""
    speeds: Annotated[dict[NodeId, Speed], Field(max_length=64)] = {}
    hops_ms: Annotated[dict[str, Seconds], Field(max_length=64)] = {}
    tokens: Annotated[int, Field(ge=0, le=10**9)] = 0
    token_s: Speed | None = None
    floor_s: Speed | None = None

    @model_validator(mode="after")
    def _blames_someone(self) -> PipelineReport:
        if self.kind != "ok" and self.worker is None:
            raise ValueError(f"a report of kind {self.kind} names the worker")
        return self


class HeartbeatReply(_Strict):
    """What every heartbeat brings back; ``revoked`` nodes are to be cut off at once."""

    lease_s: float
    revoked: list[str]
    paused: bool
    relay: dict[str, Any] | None
    gossip: dict[str, Any] | None = None


def sentence(errors: Sequence[Any]) -> str:
    """Say what is wrong with a body: the first field at fault, and how many more there are.

    The value that was given is never repeated: it may be a secret.
    """
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")[:80] or "the body"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    what = str(first["msg"]).removeprefix("Value error, ")
    return f"The request was not understood: {where}: {what}{more}; compare both programs' versions."
