"""Which pipelines an engine serves, how much memory each may take, and which spans are loaded.

*Covered*: two pipelines of the same span (its weights are held once), a pipeline that is opened anew (the old
one ends), weights, caches and adapters together never above the memory that the engine was given. *Not
covered*: memory that other programs take.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from sharedllm.engines.errors import NotServed
from sharedllm.engines.stage import Stage, Work
from sharedllm.wire import (
    Adapter,
    Adopted,
    Attach,
    BadFrame,
    Codec,
    Fault,
    Frame,
    Kind,
    Link,
    LinkClosed,
    Message,
    Open,
)

__all__ = ["Admission", "Find", "Session", "Sessions"]

Find = Callable[[str, str, int, int], Stage]
"""Load layers ``[start, stop)`` of a model, given its name and the hash of its weights."""

_REMEMBERED = 64  # refused pipelines whose other workers may still come
_ADAPTERS_BYTES = 256 << 20  # of one pipeline: a thousand users of a model of 135M parameters
_FEWEST_TOKENS = 256  # a pipeline that can't hold so many positions is not worth opening


@dataclass(frozen=True)
class Admission(Message):
    """What a caller's ticket allows, as the proxy read it: the engine checks each request against it."""

    caller: str
    worker: str
    model: str
    start: int
    stop: int
    pipeline: str

    def permit(self, pipeline: str, opened: Open | None = None) -> None:
        """Raise ``NotServed`` unless the ticket is for this pipeline, and for its model and span."""
        if pipeline != self.pipeline:
            self._refuse("another pipeline")
        if opened is not None and opened.model != self.model:
            self._refuse("another model")
        if opened is not None and not self.start <= opened.start < opened.stop <= self.stop:
            self._refuse("another span")

    def _refuse(self, what: str) -> NoReturn:
        raise NotServed(
            f"Node {self.caller[:8]} asked for {what} than its ticket's: layers [{self.start}, {self.stop}) "
            f"of {self.model[:12]}."
        )


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
    waiting_steps: int = 0
    waiting_bytes: int = 0
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, steps: int, size_bytes: int) -> None:
        """Count steps that begin to wait here, or (negative) are done waiting."""
        with self._counting:
            self.waiting_steps += steps
            self.waiting_bytes += size_bytes

    @property
    def out(self) -> Link:
        """Where computed steps go. Raises ``NotServed`` while the next worker is not reached yet."""
        if self.work.last:
            return self.primary
        if self.following is None:
            raise NotServed("A step came before the next worker was reached.")
        return self.following

    def adopt(self, frame: Frame) -> None:
        """Take an adapter, and tell the primary so. Raises ``BadFrame``, ``BadStep``, ``LinkClosed``."""
        lent = Adapter.from_bytes(frame.meta)
        self.work.adopt(lent, frame.body)
        self.primary.post(Frame(Kind.ADOPTED, self.epoch, frame.step, Adopted(lent.number).to_bytes()))

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
        self._refused: deque[tuple[str, int]] = deque(maxlen=_REMEMBERED)
        self._over = False
        self._changed = threading.Condition()
        self._loading = threading.Lock()

    def open(self, request: Open, epoch: int, primary: Link, last: bool) -> Session:
        """Load what is missing, grant memory, admit the worker before; an older one of that name ends.

        Raises ``BadFrame``, ``NotServed``, and what ``find`` raises; the worker before hears of it, too.
        """
        try:
            return self._opened(request, epoch, primary, last)
        except BaseException:
            with self._changed:
                self._refused.append((request.pipeline, epoch))
                self._changed.notify_all()
            raise

    def _opened(self, request: Open, epoch: int, primary: Link, last: bool) -> Session:
        roundings = _roundings(request)
        with self._loading:
            stage = self._stage(request)
            with self._changed:
                old = self._sessions.get(request.pipeline)
                if old is not None and epoch < old.epoch:
                    raise NotServed(f"Epoch {epoch} of this pipeline is over; it is in epoch {old.epoch}.")
                free = self.memory_bytes - self.weights_bytes - self._granted_bytes(without=old)
                budget = max(free // 2, min(free, _FEWEST_TOKENS * stage.kv_bytes_per_token))
                if budget < _FEWEST_TOKENS * stage.kv_bytes_per_token:
                    raise NotServed(
                        f"Layers [{request.start}, {request.stop}) fit here, but only {max(0, free):,} bytes "
                        f"are left for their caches, too few for {_FEWEST_TOKENS} tokens."
                    )
                adapters = min(_ADAPTERS_BYTES, (free - budget) // 8)
                work = Work(stage, budget, roundings, last, adapters)
                session = Session(request, epoch, work, primary)
                self._sessions[request.pipeline] = session
                self._changed.notify_all()
        if old is not None:
            old.end()
        return session

    def drop(self, session: Session) -> None:
        """End a session and free its memory."""
        session.end()
        with self._changed:
            if self._sessions.get(session.opened.pipeline) is session:
                del self._sessions[session.opened.pipeline]

    def close(self) -> None:
        """End all sessions; nobody waits for one any more."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        for session in self.all():
            session.end()

    def attach(
        self, request: Attach, epoch: int, link: Link, admission: Admission, deadline_s: float
    ) -> Session:
        """Wait until the pipeline is open here and let ``link`` feed it. Raises ``NotServed``."""
        pipeline = request.pipeline
        admission.permit(pipeline)

        def opened() -> Session | None:
            session = self._sessions.get(pipeline)
            return session if session is not None and session.epoch == epoch else None

        def settled() -> bool:
            return self._over or (pipeline, epoch) in self._refused or opened() is not None

        with self._changed:
            self._changed.wait_for(settled, deadline_s)
            session = opened()
            if session is None:
                raise NotServed("The pipeline was refused here, or not opened in time.")
            admission.permit(pipeline, session.opened)
            if session.opened.start != request.stop or session.previous is not None:
                raise NotServed(
                    f"Layers up to {request.stop} were offered before a span that begins at "
                    f"{session.opened.start}, or its place is taken."
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

    def _granted_bytes(self, without: Session | None) -> int:
        others = [session.work for session in self._sessions.values() if session is not without]
        caches = sum(work.slots.budget * work.stage.kv_bytes_per_token for work in others)
        return caches + sum(work.slots.wardrobe.budget_bytes for work in others)

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


def _roundings(request: Open) -> dict[int, Codec]:
    """The codec at each border. Raises ``BadFrame``."""
    try:
        return {int(layer): Codec.named(name) for layer, name in request.roundings.items()}
    except ValueError:
        raise BadFrame("A border where hidden states are rounded is no layer's number.") from None
