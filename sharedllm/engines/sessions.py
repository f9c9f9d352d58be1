"""Which pipelines an engine serves, how much memory each may take, and which spans are loaded.

*Covered*: two pipelines of the same span (its weights are held once), a pipeline that is opened anew (the old
one ends), weights and caches together never above the memory that the engine was given. *Not covered*:
memory that other programs take.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from sharedllm.engines.errors import NotServed
from sharedllm.engines.stage import Stage, Work
from sharedllm.wire import Codec, Fault, Frame, Kind, Link, LinkClosed, Open

__all__ = ["Admission", "Find", "Session", "Sessions"]

Find = Callable[[str, str, int, int], Stage]
"""Load layers ``[start, stop)`` of a model, given its name and the hash of its weights."""

_FEWEST_TOKENS = 256  # a pipeline that can't hold so many positions is not worth opening


@dataclass(frozen=True)
class Admission:
    """What a caller's ticket allows, as the proxy read it: the engine checks each request against it."""

    caller: str
    worker: str
    model: str
    start: int
    stop: int
    pipeline: str


@dataclass
class Session:
    """One pipeline at this engine: its work, the primary's link, and the link to the next worker, if any."""

    opened: Open
    epoch: int
    work: Work
    primary: Link
    following: Link | None = None
    previous: Link | None = field(default=None)
    closed: bool = False

    @property
    def out(self) -> Link:
        """Where computed steps go."""
        return self.following or self.primary

    def fault(self, sentence: str, culprit: str) -> None:
        """Tell the primary what went wrong, and end the pipeline here."""
        with contextlib.suppress(LinkClosed):  # then it is gone, and will see for itself
            self.primary.post(Frame(Kind.FAULT, self.epoch, meta=Fault(sentence[:1000], culprit).to_bytes()))
        self.end()

    def end(self) -> None:
        """Forget the caches and close the links to other workers; the primary's link it closes itself."""
        self.closed = True
        for link in (self.following, self.previous):
            if link is not None:
                link.close()


class Sessions:
    """The engine's book-keeping; every method may be called from any thread."""

    def __init__(self, find: Find, memory_bytes: int) -> None:
        self._find, self.memory_bytes = find, memory_bytes
        self._sessions: dict[str, Session] = {}
        self._stages: dict[tuple[str, int, int], Stage] = {}
        self._changed = threading.Condition()
        self._loading = threading.Lock()

    def open(self, request: Open, epoch: int, primary: Link, last: bool) -> Session:
        """Load what is missing and grant memory. Raises ``NotServed``, and what ``find`` raises."""
        roundings = {int(layer): Codec.named(name) for layer, name in request.roundings.items()}
        with self._loading:
            stage = self._stage(request)
            with self._changed:
                free = self.memory_bytes - self.weights_bytes - self._granted_bytes()
                budget = max(free // 2, min(free, _FEWEST_TOKENS * stage.kv_bytes_per_token))
                if budget < _FEWEST_TOKENS * stage.kv_bytes_per_token:
                    raise NotServed(
                        f"Layers [{request.start}, {request.stop}) fit here, but only {max(0, free):,} bytes "
                        f"are left for their caches, too few for {_FEWEST_TOKENS} tokens."
                    )
                session = Session(request, epoch, Work(stage, budget, roundings, last), primary)
        return session

    def add(self, session: Session) -> None:
        """Make a session known, so that the worker before it can attach; an older one of that name ends."""
        with self._changed:
            old = self._sessions.get(session.opened.pipeline)
            self._sessions[session.opened.pipeline] = session
            self._changed.notify_all()
        if old is not None:
            old.end()

    def drop(self, session: Session) -> None:
        """End a session and free its memory."""
        session.end()
        with self._changed:
            if self._sessions.get(session.opened.pipeline) is session:
                del self._sessions[session.opened.pipeline]

    def attach(self, pipeline: str, epoch: int, stop: int, link: Link, deadline_s: float) -> Session:
        """Wait until the pipeline is open here and let ``link`` feed it. Raises ``NotServed``."""

        def opened() -> bool:
            session = self._sessions.get(pipeline)
            return session is not None and session.epoch == epoch

        with self._changed:
            if not self._changed.wait_for(opened, deadline_s):
                raise NotServed("The pipeline was not opened here in time.")
            session = self._sessions[pipeline]
            if session.opened.start != stop or session.previous is not None:
                raise NotServed(
                    f"Layers up to {stop} were offered before a span that begins at {session.opened.start}, "
                    "or its place is taken."
                )
            session.previous = link
        return session

    @property
    def weights_bytes(self) -> int:
        """Bytes of all loaded spans."""
        return sum(stage.weights_bytes for stage in list(self._stages.values()))

    @property
    def kv_bytes(self) -> int:
        """Bytes that caches hold now."""
        return sum(session.work.slots.size_bytes for session in self.all())

    def all(self) -> list[Session]:
        """The pipelines that are open now."""
        return list(self._sessions.values())

    def __len__(self) -> int:
        return len(self._sessions)

    def _granted_bytes(self) -> int:
        return sum(s.work.slots.budget * s.work.stage.kv_bytes_per_token for s in self._sessions.values())

    def _stage(self, request: Open) -> Stage:
        key = (request.model, request.start, request.stop)
        if key not in self._stages:
            used = {id(session.work.stage) for session in self.all()}
            for other in [k for k, stage in self._stages.items() if id(stage) not in used]:
                del self._stages[other]  # a span that nobody uses makes room for one that somebody wants
            self._stages[key] = self._find(request.name, request.model, request.start, request.stop)
        stage = self._stages[key]
        if self.weights_bytes > self.memory_bytes:
            del self._stages[key]
            raise NotServed(
                f"Layers [{request.start}, {request.stop}) take {stage.weights_bytes:,} bytes; this worker "
                f"gives {self.memory_bytes:,} in all."
            )
        return stage
