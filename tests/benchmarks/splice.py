"""What the proxy costs: bytes per second and µs per round trip, beside a bare TLS socket."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import struct
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sharedllm.nodes.identity import Authority, Identity, NodeKey, Ticket, issue, server_context, write_public
from sharedllm.nodes.proxy import Endpoint, Proxy, dial

__all__ = ["measure"]

_BYTES, _PIECE, _TRIPS, _TRIP_BYTES, _ROUNDS = 1 << 30, 1 << 20, 1000, 1180, 5
_MODEL, _PIPELINE = "a" * 64, "b" * 32


def measure(folder: Path) -> dict[str, float]:
    """Medians of interleaved rounds; every end is a process of its own."""
    authority = Authority.load_or_create(folder / "authority")
    worker, caller = (_node(authority, folder / role, role) for role in ("worker", "primary"))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    path = folder / "engine.sock"
    ends = [context.Process(target=_engine, args=(str(path),), daemon=True)]
    ends[0].start()
    while not path.exists():
        time.sleep(0.02)
    for target in (_proxy, _bare):
        ends.append(context.Process(target=target, args=(worker.folder, str(path), theirs), daemon=True))
        ends[-1].start()
    ports = dict(ours.recv() for _ in range(2))
    expires = int(time.time()) + 600
    ticket = issue(authority, Ticket(worker.id, caller.id, _MODEL, 0, 1, expires, _PIPELINE))
    found: dict[str, list[float]] = {}
    for _ in range(_ROUNDS):
        for name in ("bare", "proxied"):
            where = [Endpoint("lan", "127.0.0.1", ports[name])]
            with dial(where, ticket, expect=worker.id, identity=caller, deadline_s=10) as sock:
                found.setdefault(f"{name}_us", []).append(_round_trip_us(sock))
                found.setdefault(f"{name}_bytes_per_s", []).append(_bytes_per_s(sock))
    for process in ends:
        process.kill()
        process.join()
    medians = {name: statistics.median(values) for name, values in found.items()}
    pairs = zip(found["proxied_bytes_per_s"], found["bare_bytes_per_s"], strict=True)
    return {**medians, "share": statistics.median(proxied / bare for proxied, bare in pairs)}


def _round_trip_us(sock: socket.socket) -> float:
    message, times_s = b"e" + bytes(_TRIP_BYTES - 1), []
    for _ in range(_TRIPS):
        began_s = time.perf_counter()
        sock.sendall(message)
        _read(sock, _TRIP_BYTES)
        times_s.append(time.perf_counter() - began_s)
    return 1e6 * statistics.median(times_s)


def _bytes_per_s(sock: socket.socket) -> float:
    """Send much, and wait for the one byte that says that all of it has arrived."""
    piece = bytes(_PIECE)
    sock.sendall(b"s" + struct.pack(">Q", _BYTES) + bytes(_TRIP_BYTES - 9))
    began_s = time.perf_counter()
    for _ in range(_BYTES // _PIECE):
        sock.sendall(piece)
    _read(sock, 1)
    return _BYTES / (time.perf_counter() - began_s)


def _answer(sock: socket.socket) -> None:
    """The far end: echo short messages, swallow long ones."""
    buffer = bytearray(_PIECE)
    while True:
        message = _read(sock, _TRIP_BYTES)
        if message[:1] == b"e":
            sock.sendall(message)
            continue
        (left,) = struct.unpack(">Q", message[1:9])
        while left:
            left -= sock.recv_into(buffer, min(len(buffer), left))
        sock.sendall(b"k")


def _engine(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    while True:
        sock, _ = listener.accept()
        try:
            _answer(sock)
        except ConnectionError:
            sock.close()


def _bare(folder: Path, path: str, tell: Connection) -> None:
    """TLS with the same certificates and the same greeting, without a splice."""
    context: Any = server_context(Identity.load(folder), client_certificates="required")
    listener = socket.create_server(("127.0.0.1", 0))
    tell.send(("bare", listener.getsockname()[1]))
    while True:
        raw, _ = listener.accept()
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with context.wrap_socket(raw, server_side=True) as sock:
                (length,) = struct.unpack(">I", _read(sock, 4))
                _read(sock, length)
                sock.sendall(b"\x00")
                _answer(sock)
        except OSError:
            continue


def _proxy(folder: Path, path: str, tell: Connection) -> None:
    async def run() -> None:
        proxy = Proxy(Identity.load(folder), engine_socket=Path(path), admit=lambda *_: None, preamble=False)
        tell.send(("proxied", await proxy.serve("127.0.0.1", 0)))
        await asyncio.Event().wait()

    asyncio.run(run())


def _node(authority: Authority, folder: Path, role: str) -> Identity:
    key = NodeKey.load_or_create(folder / "node.key")
    write_public(folder / "node.crt", authority.issue(key.public_bytes, role))
    write_public(folder / "ca.crt", authority.certificate_pem)
    return Identity.load(folder)


def _read(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectionError("the other end is gone")
        data += more
    return bytes(data)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as where:
        print(measure(Path(where)))
