"""What the API and the page stand on: a service that continues prompts and can say how it is doing.

The primary implements it; nothing in this room knows a node, a socket or a tensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, Protocol

from sharedllm.model import Sampling, Tokenizer

__all__ = ["Ask", "Said", "Served", "Service", "Stream"]


@dataclasses.dataclass(frozen=True)
class Ask:
    """One prompt to continue; ``top_logprobs`` (≤ 20) alternatives are wanted for each token.

    ``request_id`` goes with it into every log; ``client`` says who asks, for a fair share. ``model`` names
    what is to answer (``""``: the default). ``receipt`` is the id under which a receipt for the answer can be
    asked for later, bound to the Ed25519 key ``client_key`` (64 hex digits) if there is one; without an id
    none is written.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    top_logprobs: int = 0
    request_id: str = ""
    client: str = ""
    model: str = ""
    client_key: str | None = None
    receipt: str = ""


@dataclasses.dataclass(frozen=True)
class Said:
    """One generated token: the text that is now safe to show, its log-probability (nats), and its time.

    ``piece`` may be empty (half a character, or the beginning of a stop string). ``token`` is −1 for text
    that is let go at the end without a token of its own. ``top`` are (token, log-probability), likeliest
    first. ``ms`` is the time since the token before.
    """

    token: int
    piece: str
    logprob: float
    top: tuple[tuple[int, float], ...]
    ms: float
    responsibilities: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Served:
    """A model that may be asked for by ``name``.

    ``members``: the names of those that answer, in the order of their responsibilities. ``ids``: the hash of
    each one's manifest, or of its numbers where an adapter has none.
    """

    name: str
    kind: Literal["base", "mixture", "specialist", "adapter"]
    members: tuple[str, ...]
    ids: tuple[str, ...]


class Stream(Protocol):
    """A continuation as it comes; the properties are final once the iteration has ended.

    ``finish_reason`` is "stop", "length" or "cancelled". ``cancel`` may be called at any time, by the event
    loop that iterates, and frees what the request holds; nobody reads on after it.
    """

    @property
    def finish_reason(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def failovers(self) -> int: ...
    def __aiter__(self) -> AsyncIterator[Said]: ...
    async def __anext__(self) -> Said: ...
    def cancel(self) -> None: ...


class Service(Protocol):
    """What is served; every method may be called from the event loop, except ``explain`` and ``receipt``,
    which block. ``model`` is what answers whoever names none."""

    @property
    def model(self) -> str: ...
    @property
    def created(self) -> int: ...
    @property
    def context(self) -> int: ...
    @property
    def tokenizer(self) -> Tokenizer: ...

    def models(self) -> list[Served]:
        """What may be asked for now, the default first."""
        ...

    def served(self, name: str) -> Served | None:
        """What goes by that name (``""``: the default), or None."""
        ...

    def submit(self, ask: Ask) -> Stream:
        """Begin to continue a prompt. Raises ``Busy``, ``BadPrompt`` and ``NoPipeline``."""
        ...

    def state(self) -> dict[str, Any]:
        """The live picture that the page and ``status`` show; cheap."""
        ...

    def explain(
        self, prompt: Sequence[int], token: int, said: Sequence[int] = (), model: str = ""
    ) -> dict[str, Any]:
        """Say what moved ``token`` after ``prompt`` and what ``model`` had ``said`` of its answer until then:
        specialists, nodes, layers, alternatives. Blocks up to seconds."""
        ...

    def receipt(self, identifier: str) -> bytes | None:
        """The receipt (JSON) of an answer that is over, or None if none is known. Blocks up to seconds."""
        ...

    def log(self) -> dict[str, Any] | None:
        """What receipts are verified against, if an audit log is kept: ``key`` (what ``sharedllm receipt
        verify --log-key`` takes), ``node_key`` (its 64 hex digits, which it takes as well), ``size``, the
        latest signed ``checkpoint`` (C2SP), how many answers are ``unaudited``, and a ``sentence``."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Whether a real token has gone through the whole pipeline, and a sentence; cheap."""
        ...
