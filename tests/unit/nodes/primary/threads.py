"""A federation in threads: real engines on Unix sockets, the real loop, and a coordinator that only plans."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sharedllm.engines import Ends, Engine, Stage
from sharedllm.engines.sessions import Session
from sharedllm.model import Config, Tokenizer, Transformer, train_tokenizer
from sharedllm.nodes.errors import CoordinatorAway, DialFailed, NoPipeline
from sharedllm.nodes.primary import Loop, Member, Model, Primary, Routes
from sharedllm.nodes.primary.federated.repertoire import Part, Repertoire
from sharedllm.wire import Codec, Frame, Link

DEADLINE_S = 60.0
HASH = "ab" * 32
CONFIG = Config(
    vocab_size=320, width=64, layers=4, heads=4, kv_heads=2, head_width=16, hidden=96, context=1024
)

Trick = Callable[["Node", Session, Frame], bool]
"""What a node does instead of computing a step; False: it computes the step after all."""


def tiny_tokenizer() -> Tokenizer:
    """A vocabulary without an end, so that a text is as long as it was asked to be."""
    trained = train_tokenizer(["the river rises in the hills and the towns on its banks are old"] * 4, 320)
    return Tokenizer(json.loads(trained.to_bytes())["tokenizer"], bos=0)


class Node(Engine):
    """An engine whose steps can be tampered with: ``tricks`` says at which of its steps, counted from 1."""

    def __init__(self, place: Place, name: str, memory_bytes: int = 64 << 20) -> None:
        super().__init__(self.find, self.connect, memory_bytes, lambda: self.given)
        self.place, self.name, self.given = place, name, 1.0
        self.tricks: dict[int, Trick] = {}
        self.steps = 0
        self.refusal: Exception | None = None
        self.ended = threading.Event()
        self.awake = threading.Event()
        self.awake.set()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(place.folder / name))
        self.listener.listen(64)
        self.thread = threading.Thread(target=self.serve, args=(self.listener,), daemon=True)
        self.thread.start()

    def find(self, name: str, model: str, start: int, stop: int) -> Stage:
        """Build a span, unless this node was told to fail."""
        if self.refusal is not None:
            raise self.refusal
        return self.place.stage(start, stop, model)

    def close(self) -> None:
        """End, and let go of what it was told to wait for."""
        self.ended.set()
        self.awake.set()
        super().close()

    def connect(self, following: dict[str, Any]) -> socket.socket:
        """Reach the next node."""
        return self.place.reach(self.name, following["node"], following["ticket"])

    def _one(self, session: Session, frame: Frame, wait_s: float) -> None:
        self.steps += 1
        trick = self.tricks.get(self.steps)
        self.awake.wait(DEADLINE_S)
        if trick is None or not trick(self, session, frame):
            super()._one(session, frame, wait_s)

    def _received(self, frame: Frame, link: Link, *rest: Any) -> Session | None:
        self.awake.wait(DEADLINE_S)
        return super()._received(frame, link, *rest)


class Coordinator:
    """Plans over the nodes that live: the first ``wanted`` in their order, layers in equal parts."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.wanted, self.token_s, self.with_spares = 2, 0.05, True
        self.away = False
        self.asked: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.closed: list[str] = []
        self.told = threading.Condition()

    def open_pipeline(self, request: Mapping[str, Any], *, deadline_s: float = 1.0) -> dict[str, Any]:
        """Plan, with a spare for every node."""
        self._there()
        live = [name for name in self._place.nodes if name not in request["banned"]]
        if request.get("dry"):
            spared = live if self.with_spares and len(live) > 1 else []
            return {"spans": self._spans(live), "token_s": self.token_s, "spared": spared}
        self.asked.append(dict(request))
        model = request.get("model", HASH)
        reply = self._reply(live, model)
        spare = {n: self._reply([m for m in live if m != n], model) for n in live} if len(live) > 1 else {}
        return {**reply, "spares": spare if self.with_spares else {}}

    def report(self, pipeline: str, report: Mapping[str, Any], *, deadline_s: float = 1.0) -> None:
        """Write a report down."""
        self._there()
        with self.told:
            self.reports.append(dict(report))
            self.told.notify_all()

    def close_pipeline(self, pipeline: str, *, deadline_s: float = 1.0) -> None:
        """Note which pipeline was given up."""
        self._there()
        self.closed.append(pipeline)

    def wait_for_report(self, kind: str, worker: str) -> None:
        """Wait until this was said of a worker; reports come from a thread of their own."""

        def told() -> bool:
            return any((r["kind"], r.get("worker")) == (kind, worker) for r in self.reports)

        with self.told:
            assert self.told.wait_for(told, DEADLINE_S), self.reports

    def _there(self) -> None:
        if self.away:
            raise CoordinatorAway("The coordinator does not answer.")

    def _spans(self, live: list[str]) -> list[list[Any]]:
        if not live:
            raise NoPipeline("No node is left for layers [0, 4); 1,000 bytes of memory are missing.")
        count = min(self.wanted, len(live), CONFIG.layers)
        cuts = [CONFIG.layers * i // count for i in range(count + 1)]
        return [[live[i], cuts[i], cuts[i + 1]] for i in range(count)]

    def _reply(self, live: list[str], model: str) -> dict[str, Any]:
        spans, pipeline = self._spans(live), f"{self._place.next_number():032x}"
        self._place.pipelines[pipeline] = model
        workers = [
            {"node": n, "name": n.upper(), "start": a, "stop": b, "endpoints": [], "ticket": pipeline}
            | {"next_ticket": pipeline if b < CONFIG.layers else None, "host": f"host of {n}"}
            for n, a, b in spans
        ]
        times = {"token_s": self.token_s, "floor_s": 0.01}
        return {"pipeline": pipeline, "epoch": 1, "workers": workers, "left_out": [["w9", "Slow."]], **times}


class Place:
    """Everything together; ``nodes`` are those that live."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, wire: Codec) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sl-"))
        self.whole, self._wire = model, wire
        self.models = {HASH: model}
        self.pipelines: dict[str, str] = {}  # which model each is of
        self.numbers = 0
        self.nodes: dict[str, Node] = {}
        self.made: list[Node] = []
        self._threads = set(threading.enumerate())
        self.coordinator = Coordinator(self)
        self.loops: list[Loop] = []
        self.loop = self.loop_of("tiny", HASH)
        repertoire = Repertoire(Part("tiny", HASH, self.loop))
        self.primary = Primary(repertoire, tokenizer, "primary-id", "primary")

    def add(self, *names: str, kind: type[Node] = Node, **settings: Any) -> None:
        """Let nodes join."""
        for name in names:
            self.nodes[name] = kind(self, name, **settings)
            self.made.append(self.nodes[name])

    def loop_of(self, name: str, model: str) -> Loop:
        """A loop with pipelines of its own for one of the ``models``."""
        weights = self.models[model]
        tensors = {"embed.weight": weights.embed.weight.data, "norm.weight": weights.norm.weight.data}
        served = Model(name, model, Ends(CONFIG, tensors), self._wire)
        wish = {} if model == HASH else {"model": model}
        self.loops.append(Loop(served, Routes(self.coordinator, wish), self._connect))
        return self.loops[-1]

    def lose(self, *names: str) -> None:
        """Kill nodes: their connections end, and the coordinator knows them no more."""
        for node in [self.nodes.pop(name) for name in names]:
            node.close()

    def stage(self, start: int, stop: int, model: str) -> Stage:
        """Layers of a model, with weights of their own: packing lets go of the plain ones."""
        from copy import deepcopy

        return Stage(deepcopy(self.models[model].span(start, stop)))

    def reach(self, caller: str, worker: str, pipeline: str) -> socket.socket:
        """What proxy and dialler do together: connect, and say whom the ticket admits."""
        model = self.pipelines.get(pipeline, HASH)
        said = {"caller": caller, "worker": worker, "model": model, "start": 0, "stop": CONFIG.layers}
        admission = json.dumps({**said, "pipeline": pipeline}).encode()
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(self.folder / worker))
            sock.sendall(struct.pack(">I", len(admission)) + admission)
        except OSError as error:
            sock.close()
            raise DialFailed(f"{worker} does not answer ({error}).") from error
        return sock

    def _left(self) -> set[threading.Thread]:
        fresh = set(threading.enumerate()) - self._threads
        return {thread for thread in fresh if not thread.name.startswith("asyncio")}

    def _connect(self, member: Member) -> socket.socket:
        return self.reach("primary", member.node, member.ticket)

    def next_number(self) -> int:
        """Numbers of pipelines."""
        self.numbers += 1
        return self.numbers

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for the loop's thread to get somewhere."""
        end_s = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < end_s, f"not in time: {what}"
            threading.Event().wait(0.005)

    def close(self) -> None:
        """End everything, and see that nothing was left: no thread, no request."""
        for node in self.made:
            node.ended.set()
            node.awake.set()
        for loop in self.loops:
            if loop.is_alive():
                loop.stop("The test is over.")
        for node in self.made:
            node.close()
        self.until(lambda: not self._left(), "all threads end")
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def place(
    model: Transformer,
    tokenizer: Tokenizer,
    names: Iterable[str] = ("w1", "w2", "w3"),
    wire: Codec = Codec.FP16,
    **settings: Any,
) -> Iterator[Place]:
    """A place that is closed at the end; nothing turns before ``loop.start()``."""
    made = Place(model, tokenizer, wire)
    try:
        made.add(*names, **settings)
        yield made
    finally:
        made.close()
