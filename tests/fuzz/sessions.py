"""An engine that is attacked: bytes are read as a script of frames, valid ones and mutated ones.

Each script is one connection, from its admission to its end. Afterwards the engine must have forgotten it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import socket
import struct
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from sharedllm.engines import Engine, Stage, server
from sharedllm.model import Config, Transformer
from sharedllm.wire import (
    VERSION,
    Adapter,
    Attach,
    Codec,
    Frame,
    Hello,
    Kind,
    Note,
    Op,
    Open,
    Segment,
    StepMeta,
    Want,
)

CONFIG = Config(vocab_size=9, width=8, layers=2, heads=2, kv_heads=1, head_width=4, hidden=8, context=96)
MODEL, PIPELINE, SOON_S = "ab" * 32, "0" * 32, 20.0
ADMISSION = {"caller": "c" * 32, "worker": "w" * 32, "model": MODEL, "start": 0, "stop": 2}
EPOCH = 3
_PONG = Frame(Kind.PONG, EPOCH).head()[:4]


class Script:
    """Bytes, taken from the front; zeros when there are no more."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bool__(self) -> bool:
        return bool(self._data)

    def take(self, count: int) -> bytes:
        taken, self._data = self._data[:count], self._data[count:]
        return taken.ljust(count, b"\0")

    def byte(self) -> int:
        return self.take(1)[0]

    def mutated(self, data: bytes) -> bytes:
        """``data`` with up to three bytes changed, as the script says."""
        changed = bytearray(data)
        for _ in range(self.byte() % 4):
            at, value = struct.unpack("<HB", self.take(3))
            if changed:
                changed[at % len(changed)] = value
        return bytes(changed)


class Target:
    """One engine for all scripts. ``run`` raises ``AssertionError`` for whatever must not happen.

    It waits ``patience_s`` for steps to be computed before it hangs up on them.
    """

    def __init__(self) -> None:
        self.patience_s = 0.02
        server._ATTACH_S = 0.02
        torch.manual_seed(0)
        torch.set_num_threads(1)
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        self._path = str(Path(self._folder.name) / "e.sock")
        self.stages = {
            span: Stage(Transformer(CONFIG).eval().requires_grad_(False).span(*span))
            for span in ((0, 1), (1, 2), (0, 2))
        }
        self.engine = Engine(self._find, self._dial, 8 << 20)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self._path)
        listener.listen()
        self._thread = threading.Thread(target=self.engine.serve, args=(listener,), daemon=True)
        self._thread.start()
        self.failures: list[str] = []
        self._hook, threading.excepthook = threading.excepthook, self._failed
        self._noise = _Errors(self.failures)
        logging.getLogger("sharedllm.engines").addHandler(self._noise)

    def close(self) -> None:
        self.engine.close()
        self._thread.join(SOON_S)
        threading.excepthook = self._hook
        logging.getLogger("sharedllm.engines").removeHandler(self._noise)
        self._folder.cleanup()

    def run(self, data: bytes) -> None:
        """Play one script; then nothing of it may be left, and nothing may have failed inside."""
        with self._connected() as sock:
            sock.settimeout(SOON_S)
            script = Script(data)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                said = json.dumps({**ADMISSION, "pipeline": PIPELINE}).encode()
                sock.sendall(script.mutated(struct.pack(">I", len(said)) + said))
                sock.sendall(script.mutated(_bytes(Frame(Kind.HELLO, meta=Hello([VERSION]).to_bytes()))))
                positions = itertools.count()
                while script:
                    sock.sendall(_record(script, positions))
                self._computed(sock)
                sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(1 << 16):
                    pass
        self._forgotten()

    def _computed(self, sock: socket.socket) -> None:
        """Give the engine time for the steps that it was sent, if it still understands what it is sent."""
        sock.sendall(_bytes(Frame(Kind.PING, EPOCH)))
        sock.settimeout(self.patience_s)
        heard = b""
        with contextlib.suppress(TimeoutError):
            while _PONG not in heard and (more := sock.recv(1 << 16)):
                heard += more
            self._idle()
        sock.settimeout(SOON_S)

    def _idle(self) -> None:
        until_s = time.monotonic() + self.patience_s
        while self.engine._steps.qsize() or self.engine._busy_since is not None:
            if time.monotonic() > until_s:
                return
            time.sleep(0.0001)

    def _forgotten(self) -> None:
        until_s = time.monotonic() + SOON_S
        engine = self.engine
        while len(engine.sessions) or engine._links or engine._steps.qsize():
            assert time.monotonic() < until_s, "A connection that ended is still remembered."
            time.sleep(0.0002)
        assert not self.failures, self.failures
        assert engine.sessions.kv_bytes == 0

    def _find(self, name: str, model: str, start: int, stop: int) -> Stage:
        return self.stages[start, stop]

    def _dial(self, following: dict[str, Any]) -> socket.socket:
        """The engine's next worker is the engine itself, if the address says so."""
        if following.get("node") != "self":
            raise ConnectionRefusedError("There is nobody.")
        sock = self._connected()
        said = json.dumps({**ADMISSION, "pipeline": PIPELINE}).encode()
        sock.sendall(struct.pack(">I", len(said)) + said)
        return sock

    def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self._path)
        return sock

    def _failed(self, args: threading.ExceptHookArgs) -> None:
        self.failures.append(f"{args.thread}: {args.exc_type.__name__}: {args.exc_value}")


class _Errors(logging.Handler):
    """Keeps what is logged as an error: the engine answers those politely, but none may happen."""

    def __init__(self, failures: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._failures = failures

    def emit(self, record: logging.LogRecord) -> None:
        reason = record.exc_info[1] if record.exc_info else ""
        self._failures.append(f"{record.getMessage()}: {reason!r}")


def _record(script: Script, positions: itertools.count[int]) -> bytes:
    """The next bytes to send, as the script's next byte says."""
    what = script.byte() % 9
    if what == 0:
        return script.take(script.byte())
    if what == 1:
        return script.mutated(_bytes(Frame(Kind.OPEN, EPOCH, meta=_open(script, None).to_bytes())))
    if what == 2:
        segment = Segment(Op.ROWS, 1, next(positions), 1, Want.LAST)
        return script.mutated(_step((segment,), Codec.FP32, bytes(32)))
    if what == 3:
        return script.mutated(_drawn_step(script))
    if what == 4:
        kind, note = script.byte() % 16, Note(1, "request").to_bytes()
        meta = note if kind == Kind.NOTE else script.take(script.byte() % 32)
        return script.mutated(_bytes(Frame(kind, EPOCH, meta=meta)))  # type: ignore[arg-type]
    if what == 5:
        attach = Attach(PIPELINE, script.byte() % 3)
        return script.mutated(_bytes(Frame(Kind.ATTACH, EPOCH, meta=attach.to_bytes())))
    if what == 6:
        segment = Segment(Op.CHUNK, 1, 0, 2, Want.TRACE)
        return script.mutated(_step((segment,), Codec.FP32, b"\0\0\xc0\x7f" * 16))
    if what == 7:
        opened = _open(script, {"node": "self"})
        return script.mutated(_bytes(Frame(Kind.OPEN, EPOCH, meta=opened.to_bytes())))
    return script.mutated(_bytes(_adapter(script)))


def _adapter(script: Script) -> Frame:
    """Gains under one of four numbers for a span of none to two layers; now and then not numbers."""
    number, layers, value = script.byte() % 4, script.byte() % 3, struct.pack("<f", script.byte() - 9.0)
    body = (b"\0\0\xc0\x7f" if value == struct.pack("<f", 246.0) else value) * (16 * layers)
    meta = Adapter(number, hashlib.sha256(body).hexdigest(), layers, 8).to_bytes()
    return Frame(Kind.ADAPTER, EPOCH, meta=meta, body=body)


def _open(script: Script, following: dict[str, Any] | None) -> Open:
    start, stop = ((0, 1), (1, 2), (0, 2))[script.byte() % 3]
    return Open(PIPELINE, "toy", MODEL, start, stop, following, {"1": "fp16", "2": "int8"})


def _drawn_step(script: Script) -> bytes:
    """A step of segments that the script draws, with as many rows as they ask for."""
    segments = []
    for _ in range(script.byte() % 5):
        op, want, rows, slot, start, source = script.take(6)
        segments.append(
            Segment(Op(op % 6), slot % 4, start % 80, rows % 70 * (op % 5 < 2), Want(want % 4), source % 4)
        )
    codec, rows = Codec(script.byte() % 3), sum(segment.rows for segment in segments)
    size = {Codec.FP32: 32, Codec.FP16: 16, Codec.INT8: 12}[codec] * rows
    return _step(tuple(segments), codec, (script.take(8) * (size // 8 + 1))[:size], rows)


def _step(segments: tuple[Segment, ...], codec: Codec, body: bytes, rows: int | None = None) -> bytes:
    rows = sum(segment.rows for segment in segments) if rows is None else rows
    return _bytes(Frame(Kind.STEP, EPOCH, 1, StepMeta(segments, codec, 8, rows).to_bytes(), body))


def _bytes(frame: Frame) -> bytes:
    return frame.head() + frame.meta + bytes(frame.body)
