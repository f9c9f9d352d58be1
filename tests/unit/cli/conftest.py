"""An OpenAI API that says what a test tells it to, and a port that is taken."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class FakeApi(ThreadingHTTPServer):
    """Answers each request with ``pieces``, or with ``refusal``; remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pieces: list[str] = ["Hello", ", ", "you"]
        self.refusal: tuple[int, str, dict[str, str]] | None = None
        self.breaks_off: dict[str, Any] | bool = False
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.client_keys: list[str | None] = []
        self.receipt: bytes | None = None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeApi

    def do_GET(self) -> None:
        if self.path == "/v1/sharedllm/receipts/answer-0" and self.server.receipt is not None:
            self._send(200, self.server.receipt.decode(), "application/json")
            return
        self._send(200, json.dumps({"data": [{"id": "tiny"}]}), "application/json")

    def do_POST(self) -> None:
        api = self.server
        api.keys.append(self.headers["Authorization"])
        api.client_keys.append(self.headers["x-sharedllm-client-key"])
        api.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if api.refusal is not None:
            code, sentence, headers = api.refusal
            self._send(code, json.dumps({"error": {"message": sentence}}), "application/json", headers)
            return
        of_chat = self.path.endswith("/chat/completions")
        events: list[Any] = [
            {"choices": [{"delta": {"content": piece}} if of_chat else {"text": piece}]}
            for piece in api.pieces
        ]
        if api.receipt is not None:
            events.append({"choices": [{"text": ""}], "sharedllm": {"receipt": "answer-0"}})
        if isinstance(api.breaks_off, dict):
            events.append(api.breaks_off)
        lines = [f"data: {json.dumps(event)}\n\n" for event in events] + [": still here\n\n"]
        self._send(
            200, "".join(lines + ([] if api.breaks_off else ["data: [DONE]\n\n"])), "text/event-stream"
        )

    def _send(self, code: int, body: str, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield int(other.getsockname()[1])
