"""What a primary serves, by name: the base, each specialist, the mixture of them, and people's adapters.

Adapters are looked up when they are asked for, so that one that was fitted a moment ago is served at once.
Where names collide, the base and the specialists go before adapters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from sharedllm.adapters import Adapter, Header
from sharedllm.errors import BadAdapter, SharedLLMError, UnknownName
from sharedllm.nodes.api.service import Served
from sharedllm.nodes.primary.federated.wardrobe import Worn
from sharedllm.nodes.primary.loop import Loop

__all__ = ["MIXTURE", "Adapters", "Part", "Repertoire"]

MIXTURE = "mixture"


@dataclasses.dataclass(frozen=True)
class Part:
    """A specialist, or the base: the loop that computes it, and what it wears there; ``id`` is its hash."""

    name: str
    id: str
    loop: Loop
    worn: Worn | None = None


class Adapters(Protocol):
    """Where people's adapters are; ``adapters.library`` is one."""

    def names(self) -> list[str]: ...
    def about(self, name: str, /) -> Header: ...
    def load(self, name: str, /) -> Adapter: ...


class Repertoire:
    """The base and the ``specialists``; of two or more of these there is a mixture, which is the default."""

    def __init__(
        self, base: Part, specialists: Sequence[Part] = (), adapters: Adapters | None = None
    ) -> None:
        self.base, self._adapters = base, adapters
        parts = [base, *(part for part in specialists if part.name != base.name)]
        self._parts = {part.name: part for part in parts}
        self._mixture = tuple(specialists) if len(specialists) > 1 else ()
        self.loops = tuple(dict.fromkeys(part.loop for part in parts))
        self.default = MIXTURE if self._mixture else (specialists[0].name if specialists else base.name)

    def models(self) -> list[Served]:
        """What may be asked for now, the default first."""
        mixture = [self._served(MIXTURE, "mixture", self._mixture)] if self._mixture else []
        alone = [self._alone(part) for part in self._parts.values()]
        alone.sort(key=lambda served: served.name != self.default)
        fitting = [name for name in self._fitting() if name not in {*self._parts, MIXTURE}]
        adapters = [Served(name, "adapter", (name,), ()) for name in fitting]
        return [*mixture, *alone, *adapters]

    def served(self, name: str) -> Served | None:
        """What goes by that name (``""``: the default), with the hashes of its members.

        None where nothing does. Raises ``BadAdapter`` as ``parts`` does.
        """
        try:
            parts = self.parts(name)
        except UnknownName:
            return None
        name = name or self.default
        if name == MIXTURE and self._mixture:
            return self._served(MIXTURE, "mixture", parts)
        if name in self._parts:
            return self._alone(self._parts[name])
        return self._served(name, "adapter", parts)

    def parts(self, name: str) -> tuple[Part, ...]:
        """Who answers for ``name`` (``""``: the default).

        Raises ``UnknownName``, and ``BadAdapter`` for an adapter that the base can't wear.
        """
        name = name or self.default
        if name == MIXTURE and self._mixture:
            return self._mixture
        if name in self._parts:
            return (self._parts[name],)
        if self._adapters is None or name not in self._adapters.names():
            served = ", ".join(known.name for known in self.models())
            raise UnknownName(f"The model {name[:100]!r} is not served here; this server has {served}.")
        adapter = self._adapters.load(name)
        loop = self.base.loop
        if adapter.base_sha256 != loop.model.hash:
            raise BadAdapter(
                f"The adapter {name} was fitted on another base than {self.base.name}, which is served here; "
                f"fit it again with `sharedllm adapter fit --base {self.base.name}`."
            )
        if adapter.method != "norm":
            raise BadAdapter(
                f"The adapter {name} is of the method {adapter.method}; a primary serves norm adapters, "
                "since only those act on gains alone. Fit it again with `--method norm`."
            )
        worn = Worn.over(loop.model.ends, adapter.tensors, name)
        return (Part(name, worn.key, loop, worn),)

    def _fitting(self) -> list[str]:
        """The adapters that the base can wear."""
        if self._adapters is None:
            return []
        return [name for name in self._adapters.names() if self._fits(name)]

    def _fits(self, name: str) -> bool:
        assert self._adapters is not None
        try:
            about = self._adapters.about(name)
        except SharedLLMError:
            return False  # damaged, or gone since it was listed
        return (about.method, about.base_sha256) == ("norm", self.base.loop.model.hash)

    def _alone(self, part: Part) -> Served:
        kind = "base" if part is self.base else "specialist"
        return Served(part.name, kind, (part.name,), (part.id,))  # type: ignore[arg-type]

    def _served(self, name: str, kind: str, parts: Sequence[Part]) -> Served:
        names, ids = tuple(part.name for part in parts), tuple(part.id for part in parts)
        return Served(name, kind, names, ids)  # type: ignore[arg-type]
