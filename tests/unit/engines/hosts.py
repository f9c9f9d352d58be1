"""Engines on Unix sockets, and what stands for the proxy: whoever connects writes its own admission."""

from __future__ import annotations

import dataclasses
import itertools
import json
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from sharedllm.engines import Engine, Find, Stage, greet
from sharedllm.wire import Codec, Fault, Frame, Kind, Link, Open, Opened, Segment, StepMeta, decode, encode

SOON_S = 20.0
MODEL = "ab" * 32
PIPELINE = "0123456789abcdef" * 2
AMPLE_BYTES = 64 << 20


def admission(**changes: Any) -> dict[str, Any]:
    """What a proxy says of a caller whose ticket allows everything."""
    fields = {"caller": "c" * 32, "worker": "w" * 32, "model": MODEL, "start": 0, "stop": 4}
    return {**fields, "pipeline": PIPELINE, **changes}


class Host:
    """An engine that listens. ``dial`` reaches another host, by its path in ``Open.next``."""

    def __init__(
        self, find: Find, memory_bytes: int = AMPLE_BYTES, share: Callable[[], float] = lambda: 1.0
    ) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="engine-")
        self.path = Path(self.folder.name) / "e.sock"
        self.engine = Engine(find, self._dial, memory_bytes, share)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.thread = threading.Thread(target=self.engine.serve, args=(self.listener,), daemon=True)
        self.thread.start()
        self._callers: list[socket.socket] = []

    def raw(self, said: dict[str, Any] | None = None) -> socket.socket:
        """A connection that the proxy admitted, before its greeting."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(SOON_S)
        self._callers.append(sock)
        sock.connect(str(self.path))
        _admit(sock, admission() if said is None else said)
        return sock

    def link(self, said: dict[str, Any] | None = None) -> Link:
        """A greeted connection."""
        link = Link(self.raw(said), "the engine")
        greet(link)
        return link

    def close(self) -> None:
        self.engine.close()
        self.thread.join(SOON_S)
        for sock in self._callers:
            sock.close()
        self.folder.cleanup()

    @staticmethod
    def _dial(following: dict[str, Any]) -> socket.socket:
        path, sock = following["path"], socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
            _admit(sock, following["admission"])
        except OSError:
            sock.close()
            raise
        return sock


def _admit(sock: socket.socket, said: dict[str, Any]) -> None:
    data = json.dumps(said).encode()
    sock.sendall(struct.pack(">I", len(data)) + data)


def opening(start: int, stop: int, following: Host | None, **changes: Any) -> Open:
    """Ask for layers, with the next worker's address if there is one."""
    path = None if following is None else {"path": str(following.path), "admission": admission()}
    request = Open(PIPELINE, "toy", MODEL, start, stop, path, {})
    return dataclasses.replace(request, **changes)


class Ring:
    """A primary with its pipeline over ``hosts``, cut at ``borders``."""

    def __init__(self, hosts: list[Host], borders: list[int], epoch: int = 1, **changes: Any) -> None:
        self.epoch, self.hosts = epoch, hosts
        self.links = [host.link() for host in hosts]
        followers: list[Host | None] = [*hosts[1:], None]
        self._steps = itertools.count(1)
        for link, (start, stop), following in zip(
            self.links, itertools.pairwise(borders), followers, strict=True
        ):
            message = opening(start, stop, following, **changes)
            link.post(Frame(Kind.OPEN, epoch, meta=message.to_bytes()))
        self.opened = [Opened.from_bytes(expect(link, Kind.OPENED).meta) for link in self.links]

    def send(self, h_RD: Tensor, *segments: Segment, **changes: Any) -> None:
        meta = StepMeta(segments, Codec.FP32, h_RD.shape[1], len(h_RD))
        frame = Frame(Kind.STEP, self.epoch, next(self._steps), meta.to_bytes(), encode(h_RD, Codec.FP32))
        self.links[0].post(dataclasses.replace(frame, **changes))

    def result(self) -> tuple[StepMeta, Tensor]:
        """The next result, from the last worker."""
        frame = expect(self.links[-1], Kind.RESULT)
        assert frame.epoch == self.epoch
        meta = StepMeta.from_bytes(frame.meta)
        return meta, decode(frame.body, meta.codec, meta.rows, meta.width)

    def step(self, h_RD: Tensor, *segments: Segment) -> Tensor:
        self.send(h_RD, *segments)
        return self.result()[1]

    def close(self) -> None:
        for link in self.links:
            link.close()


def expect(link: Link, kind: Kind) -> Frame:
    """The next frame, which must be of this kind."""
    frame = link.receive(SOON_S)
    assert frame.kind is kind, frame
    return frame


def fault(link: Link) -> Fault:
    """The fault that comes next."""
    return Fault.from_bytes(expect(link, Kind.FAULT).meta)


def finder(make: Callable[[int, int], Stage]) -> Find:
    """A ``find`` that knows one model."""
    return lambda name, model, start, stop: make(start, stop)


def until(condition: Callable[[], bool]) -> bool:
    """Wait, in short naps with a deadline, for what another thread is about to do."""
    nap = threading.Event()
    return any(condition() or nap.wait(0.005) for _ in range(int(SOON_S / 0.005)))
