"""The engine's socket: pipelines are opened, attached to and fed here; one thread computes, in turn.

It listens on a Unix socket that only the proxy of the same worker reaches. The proxy says first what the
caller's ticket allows (an *admission*); every request is checked against it.

*Covered*: a caller that asks for another span, model or pipeline than its ticket's; frames of an epoch that
is over; garbage; a side that vanishes at any moment; bodies announced before a pipeline is open; adapters
from anyone but the primary. *Not covered*: who the caller is (the proxy's business).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from sharedllm.engines.errors import BadStep, NotServed
from sharedllm.engines.greeting import greet, read_admission, refuse, welcome
from sharedllm.engines.sessions import Admission, Find, Session, Sessions
from sharedllm.errors import SharedLLMError
from sharedllm.wire import (
    Attach,
    BadFrame,
    Fault,
    Frame,
    Kind,
    Limits,
    Link,
    LinkClosed,
    Note,
    Open,
    Opened,
    Pong,
    StepMeta,
)

__all__ = ["Dial", "Engine"]

Dial = Callable[[dict[str, Any]], socket.socket]
"""Connect to the next worker, given what ``Open.next`` says."""

_ATTACH_S = 60.0
_PAUSE_S = 0.1
_UNOPENED = Limits(body_bytes=0)
_WAITING_STEPS, _WAITING_BYTES = 256, 128 << 20  # of one pipeline; an honest primary is far below
_LEAST_SHARE = 0.01
_log = logging.getLogger(__name__)


class Engine:
    """Serves spans. ``find`` loads one, ``dial`` reaches the next worker, ``share`` of the time is used.

    ``share`` is asked at every step: at 0.1 the engine rests nine times as long as it computed, so that the
    machine stays its owner's.
    """

    def __init__(
        self, find: Find, dial: Dial, memory_bytes: int, share: Callable[[], float] = lambda: 1.0
    ) -> None:
        self.sessions = Sessions(find, memory_bytes)
        self._dial, self._share = dial, share
        self._steps: queue.Queue[tuple[Session, Frame, float] | None] = queue.Queue()
        self._busy_since: float | None = None
        self._step = 0
        self.steps_done = 0
        self._links: set[Link] = set()
        self._past_bytes = [0, 0]
        self._listener: socket.socket | None = None
        self._closing = threading.Event()

    def serve(self, listener: socket.socket) -> None:
        """Accept callers on ``listener`` until ``close``; computes in a thread of its own."""
        self._listener = listener
        threading.Thread(target=self._compute, name="compute", daemon=True).start()
        while not self._closing.is_set():
            try:
                sock, _ = listener.accept()
                threading.Thread(target=self._caller, args=(sock,), name="caller", daemon=True).start()
            except (
                OSError,
                RuntimeError,
            ) as error:  # no file or thread is left: others may end and free some
                if not self._closing.wait(_PAUSE_S):
                    _log.warning("A caller could not be served: %s", error)

    @property
    def traffic_bytes(self) -> tuple[int, int]:
        """Bytes of frames received and sent so far, to and from callers."""
        links = list(self._links)
        received = self._past_bytes[0] + sum(link.received_bytes for link in links)
        return received, self._past_bytes[1] + sum(link.sent_bytes for link in links)

    def ask_to_leave(self) -> None:
        """Ask every primary to move its pipeline elsewhere; those that do close theirs here."""
        for session in self.sessions.all():
            with contextlib.suppress(LinkClosed):
                session.primary.post(Frame(Kind.CLOSE, session.epoch))

    def close(self) -> None:
        """Stop accepting and end every connection."""
        self._closing.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for link in list(self._links):
            link.close()
        self.sessions.close()
        self._steps.put(None)

    def _caller(self, sock: socket.socket) -> None:
        """Serve one connection to its end."""
        try:
            admission = read_admission(sock)
        except (OSError, BadFrame) as error:
            _log.warning("A connection without a proper admission was closed: %s", error)
            sock.close()
            return
        link = Link(sock, f"node {admission.caller[:8]}", _UNOPENED)
        self._links.add(link)
        session: Session | None = None
        try:
            if self._closing.is_set():
                raise LinkClosed("This engine is closing.")
            welcome(link)
            while True:
                session = self._received(link.receive(None), link, admission, session)
        except (LinkClosed, TimeoutError) as error:
            _log.debug("%s: %s", link.name, error)
        except SharedLLMError as error:
            _log.warning("%s: %s", link.name, error)
            refuse(link, str(error))
        except Exception as error:
            _log.exception("Serving %s failed", link.name)
            refuse(link, f"The engine failed: {type(error).__name__}.")
        finally:
            if session is not None:
                if session.previous is link and not (session.closed or self._closing.is_set()):
                    session.fault("The worker before this one hung up.", "lost")
                self.sessions.drop(session)
            link.close()
            self._links.discard(link)
            self._past_bytes[0] += link.received_bytes
            self._past_bytes[1] += link.sent_bytes

    def _received(
        self, frame: Frame, link: Link, admission: Admission, session: Session | None
    ) -> Session | None:
        """Act on one frame; return the session that this connection belongs to."""
        if frame.kind is Kind.PING:
            since_s = self._busy_since  # read once: the computing thread changes it
            busy_s = 0.0 if since_s is None else time.monotonic() - since_s
            pong = Pong(busy_s, self._step, self._steps.qsize())
            link.post(Frame(Kind.PONG, frame.epoch, frame.step, pong.to_bytes()))
        elif frame.kind is Kind.OPEN and session is None:
            return self._open(frame, link, admission)
        elif frame.kind is Kind.ATTACH and session is None:
            return self._attach(frame, link, admission)
        elif session is not None and (
            frame.kind is Kind.STEP or (frame.kind is Kind.ADAPTER and link is session.primary)
        ):
            session.wait(+1, len(frame.body))
            if session.waiting_steps > _WAITING_STEPS or session.waiting_bytes > _WAITING_BYTES:
                raise NotServed(f"{session.waiting_steps} steps of one pipeline wait here; that is too many.")
            self._steps.put((session, frame, time.monotonic()))
        elif frame.kind is Kind.NOTE and session is not None:
            self._note(frame, session)
        elif frame.kind is Kind.CLOSE:
            raise LinkClosed(f"{link.name} closed the pipeline.")
        else:
            raise BadFrame(f"A {frame.kind.name} frame came where none may.")
        return session

    def _note(self, frame: Frame, session: Session) -> None:
        """Write down which request a slot belongs to, and pass it on, so that logs of all nodes agree."""
        note = Note.from_bytes(frame.meta)
        where = {"request_id": note.request[:64], "pipeline": session.opened.pipeline, "slot": note.slot}
        _log.info("computing layers %d–%d", session.opened.start, session.opened.stop - 1, extra=where)
        if session.following is not None:
            with contextlib.suppress(LinkClosed):  # the next step finds out, and says whose fault it is
                session.following.post(frame)

    def _open(self, frame: Frame, link: Link, admission: Admission) -> Session:
        request = Open.from_bytes(frame.meta)
        admission.permit(request.pipeline, request)
        session = self.sessions.open(request, frame.epoch, link, request.next is None)
        link.limits = self._opened_limits(session)
        try:
            if request.next is not None:
                self._follow(session, request.next)
            work = session.work
            opened = Opened(
                work.slots.budget,
                work.stage.kv_bytes_per_token,
                work.stage.load_s,
                torch.get_num_threads(),
                work.stage.steady,
                work.stage.config.width,
                work.slots.wardrobe.most,
            )
            link.post(Frame(Kind.OPENED, frame.epoch, meta=opened.to_bytes()))
        except BaseException:
            self.sessions.drop(session)
            raise
        return session

    def _follow(self, session: Session, following: dict[str, Any]) -> None:
        """Take the place before the next worker. Raises ``NotServed``, or what ``dial`` raises."""
        attach = Attach(session.opened.pipeline, session.opened.stop)
        try:
            session.following = link = Link(self._dial(following), "the next worker", _UNOPENED)
            greet(link)
            link.post(Frame(Kind.ATTACH, session.epoch, meta=attach.to_bytes()))
            reply = link.receive(_ATTACH_S)
        except (LinkClosed, BadFrame, OSError) as error:
            raise NotServed(f"The next worker did not take the pipeline: {error}") from error
        if reply.kind is not Kind.ATTACHED:
            said = Fault.from_bytes(reply.meta).sentence if reply.kind is Kind.FAULT else reply.kind.name
            raise NotServed(f"The next worker did not take the pipeline: {said}")

    def _attach(self, frame: Frame, link: Link, admission: Admission) -> Session:
        request = Attach.from_bytes(frame.meta)
        session = self.sessions.attach(request, frame.epoch, link, admission, _ATTACH_S)
        link.limits = self._opened_limits(session)
        link.post(Frame(Kind.ATTACHED, frame.epoch))
        return session

    def _opened_limits(self, session: Session) -> Limits:
        """From now on a step may carry as many rows as the limits say, of this model's width."""
        limits = Limits()
        widest = limits.rows * 2 * 4 * session.work.stage.config.width
        return Limits(body_bytes=min(limits.body_bytes, widest))

    def _compute(self) -> None:
        """Take steps in order of arrival and pass them on; the only thread that computes."""
        while self._computed_next():
            pass

    def _computed_next(self) -> bool:
        """Wait for a step and compute it; keep nothing of it, for its pipeline may be over."""
        taken = self._steps.get()
        if taken is None:
            return False
        session, frame, arrived_s = taken
        session.wait(-1, -len(frame.body))
        if not session.closed:
            self._busy_since, self._step = time.monotonic(), frame.step
            self._one(session, frame, self._busy_since - arrived_s)
            self.steps_done += frame.kind is Kind.STEP
            self._busy_since = None
        return True

    def _one(self, session: Session, frame: Frame, wait_s: float) -> None:
        """Compute one step and send it on; whatever goes wrong becomes a sentence for the primary."""
        try:
            if frame.epoch != session.epoch:
                raise BadStep(f"A step of epoch {frame.epoch} came to a pipeline of epoch {session.epoch}.")
            if frame.kind is Kind.ADAPTER:
                return session.adopt(frame)
            meta, body = session.work.step(
                StepMeta.from_bytes(frame.meta), frame.body, wait_s, self._steps.qsize()
            )
            meta = self._rested(meta)
            kind = Kind.RESULT if session.work.last else Kind.STEP
            session.out.post(Frame(kind, frame.epoch, frame.step, meta.to_bytes(), body))
        except ArithmeticError as error:
            session.fault(str(error), "previous")
        except LinkClosed as error:
            session.fault(str(error), "next")
        except (SharedLLMError, ValueError) as error:
            session.fault(str(error), "here" if frame.kind is Kind.STEP else "request")
        except Exception as error:
            _log.exception("A step failed")
            session.fault(f"The engine failed: {type(error).__name__}.", "here")

    def _rested(self, meta: StepMeta) -> StepMeta:
        """Rest as long as the owner's share asks for, and count it as computing: the step was so slow."""
        share, hop = max(self._share(), _LEAST_SHARE), meta.hops[-1]
        if share >= 1:
            return meta
        rest_s = hop.compute_us / 1e6 * (1 / share - 1)
        time.sleep(rest_s)
        hop = dataclasses.replace(hop, compute_us=hop.compute_us + round(rest_s * 1e6))
        return dataclasses.replace(meta, hops=(*meta.hops[:-1], hop))
