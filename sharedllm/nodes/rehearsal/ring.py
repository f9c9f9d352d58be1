"""The rehearsal itself: plans and a model in, requests answered, and every worker within reach."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from sharedllm import store
from sharedllm.engines import BadStep, Ends, NotServed, Stage
from sharedllm.errors import SharedLLMError
from sharedllm.model import Sampling
from sharedllm.nodes.identity import Authority, enrol
from sharedllm.nodes.primary import CHUNK, Connect, Loop, Member, Model, Route, Routes
from sharedllm.nodes.primary.batching import Step
from sharedllm.nodes.primary.ring import Ring
from sharedllm.nodes.proxy import Endpoint, dial
from sharedllm.nodes.rehearsal.plans import Plan, Script
from sharedllm.nodes.rehearsal.requests import Heard, Request
from sharedllm.nodes.rehearsal.workers import Worker
from sharedllm.wire import Codec, Op, Segment

__all__ = ["Recording", "Rehearsal", "refusal"]

_DIAL_S = 10.0
_ANSWER_S = 600.0


class Recording(Loop):
    """The primary's loop, which notes who read from each step, and how long replays took.

    ``replays_s``: for every pipeline after the first, from its first step to the first token that came of it.
    """

    def __init__(self, model: Model, routes: Routes, connect: Connect) -> None:
        super().__init__(model, routes, connect)
        self.companies: list[tuple[int, ...]] = []
        self.replays_s: list[float] = []
        self._opened = 0
        self._began_s: float | None = None

    def _fill(self, ring: Ring) -> None:
        now_s, idle = time.monotonic(), not self._in_flight
        super()._fill(ring)
        if self._began_s is None and self._opened > len(self.replays_s) + 1 and idle and self._in_flight:
            self._began_s = now_s

    def _tell(self, step: Step, h_RD: Tensor, traces: Tensor) -> None:
        self.companies.append(tuple(sequence.number for sequence, _ in step.readers))
        super()._tell(step, h_RD, traces)
        if step.readers and self._began_s is not None:
            self.replays_s.append(time.monotonic() - self._began_s)
            self._began_s = None

    def _open(self, route: Route) -> None:
        super()._open(route)
        self._opened, self._began_s = self._opened + 1, None


class Rehearsal:
    """A federation of the workers that ``plans`` name, open between ``with`` and its end.

    The first plan whose workers live is used; ``loop`` may be a broken one (``faults``). Raises what
    ``store.resolve`` raises for a model that is not there.
    """

    def __init__(
        self, model: str, plans: Sequence[Plan], *, wire: str = "fp16", loop: type[Recording] = Recording
    ) -> None:
        self._model, self._plans, self._wire, self._loop_type = model, plans, wire, loop
        self._exit = contextlib.ExitStack()
        self._numbers = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            self._set_up(undo)
            self._exit = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def ask(self, prompt: Sequence[int], sampling: Sampling) -> Request:
        """Begin to answer a prompt; several may run side by side."""
        self._numbers += 1
        context = self.loop.model.ends.config.context
        request = Request(tuple(prompt), sampling, self._tokenizer, context, self._numbers)
        self.loop.submit(request)
        return request

    def answer(self, prompt: Sequence[int], sampling: Sampling) -> Heard:
        """Answer a prompt and wait for it. Raises ``TimeoutError``, ``NoPipeline``."""
        return self.ask(prompt, sampling).heard(_ANSWER_S)

    def answers(
        self, asked: Iterable[tuple[Sequence[int], Sampling]], deadline_s: float, apart_s: float = 0.0
    ) -> list[Heard | None]:
        """Answer prompts side by side: at once, or ``apart_s`` after each other once the first speaks.

        None stands for one that failed, or was not answered ``deadline_s`` after the one before.
        """
        requests: list[Request] = []
        for prompt, sampling in asked:
            if requests and apart_s:
                requests[0].speaks.wait(deadline_s)
                time.sleep(apart_s)
            requests.append(self.ask(prompt, sampling))
        heard: list[Heard | None] = []
        for request in requests:
            try:
                heard.append(request.heard(deadline_s))
            except (SharedLLMError, TimeoutError):
                heard.append(None)
        return heard

    def compute_ms(self, name: str) -> float:
        """What a worker of the present pipeline takes for a step of single tokens, its rests included."""
        assert self.loop.ring is not None
        names = [member.name for member in self.loop.ring.route.members]
        return 1e3 * self.loop.pace.compute_s(names.index(name))

    def _set_up(self, undo: contextlib.ExitStack) -> None:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="sharedllm-")))
        undo.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(0.0005)  # as workers and primaries do
        manifest = store.resolve(self._model)
        self._tokenizer = store.opened_tokenizer(manifest)
        authority = Authority.load_or_create(folder / "authority")
        self.primary = enrol(authority, folder / "primary", "primary")
        proxies = undo.enter_context(_event_loop())
        self.workers: dict[str, Worker] = {}
        for name in dict.fromkeys(name for plan in self._plans for name, _, _ in plan):
            self.workers[name] = self._worker(name, authority, folder, proxies)
            undo.callback(self.workers[name].close)
        script = Script(authority, self.primary, manifest.weights_sha256, self._plans, self.workers)
        ends = Ends.opened(manifest)
        served = Model(self._model, manifest.weights_sha256, ends, Codec.named(self._wire))
        self.loop = self._loop_type(served, Routes(script, {}), self._connect)
        self.loop.start()
        undo.callback(self.loop.stop, "The rehearsal is over.")

    def _worker(
        self, name: str, authority: Authority, folder: Path, proxies: asyncio.AbstractEventLoop
    ) -> Worker:
        identity = enrol(authority, folder / name, "worker")

        def onward(following: dict[str, Any]) -> socket.socket:
            endpoints = [Endpoint.from_dict(endpoint) for endpoint in following["endpoints"]]
            ticket, node = following["ticket"], following["node"]
            return dial(endpoints, ticket, expect=node, identity=identity, deadline_s=_DIAL_S)

        return Worker(identity, _find, onward, folder, proxies)

    def _connect(self, member: Member) -> socket.socket:
        endpoints = [Endpoint.from_dict(dict(endpoint)) for endpoint in member.endpoints]
        identity = self.primary
        return dial(endpoints, member.ticket, expect=member.node, identity=identity, deadline_s=_DIAL_S)


def refusal(model: str, position: int, holding: int = 0) -> str | None:
    """What a worker says to a row at ``position`` of a text of which it holds ``holding`` positions.

    None if it takes it: a worker counts positions, and can't know whose they are.
    """
    manifest = store.resolve(model)
    stage = _stage(model, manifest.weights_sha256, 0, manifest.config.layers)
    slots = stage.slots((position + holding + 2 * CHUNK) * stage.kv_bytes_per_token)
    before = [(Segment(Op.CHUNK, 1, 0, holding), holding)] if holding else []
    try:
        with torch.inference_mode():
            for segment, rows in [*before, (Segment(Op.ROWS, 1, position, 1), 1)]:
                stage.run(torch.zeros(rows, manifest.config.width), (segment,), slots, {})
    except BadStep as error:
        return str(error)
    return None


def _find(name: str, weights_sha256: str, start: int, stop: int) -> Stage:
    """Load a span, once for all workers of this process: stages hold no state of a pipeline."""
    return _stage(name, weights_sha256, start, stop)


@functools.lru_cache(maxsize=16)
def _stage(name: str, weights_sha256: str, start: int, stop: int) -> Stage:
    manifest = store.resolve(name)
    if manifest.weights_sha256 != weights_sha256:
        raise NotServed(f"The model {name} changed while it was being rehearsed; begin anew.")
    return Stage.opened(manifest, start, stop)


@contextlib.contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread, for the proxies."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="proxies", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
