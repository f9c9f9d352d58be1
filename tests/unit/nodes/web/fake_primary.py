"""A primary of the imagination: the page, a scripted reply, scripted news. Standard library alone.

It suffices because the page knows a primary by its HTTP alone; the headers are as strict as the real ones, so
that an inline style, a foreign address or a string run as markup shows up as an error in the console.
"""

from __future__ import annotations

import json
import math
import mimetypes
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from sharedllm.nodes.web import FOLDER

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
REPLY = (
    "The sky is dark because the **universe is finite in age**. "
    "Light from far away has not reached us yet.\n\n"
    "1. Stars are many, but they had a beginning.\n2. Space `expands`, and light grows red.\n\n"
    "```python\ndef night(sky):\n    return sky < 1  # <b>not bold</b>\n```\nThat is *nearly* all."
)
SPANS: list[dict[str, Any]] = [
    {"node": "a1", "name": "kettle", "host": "h1", "start": 0, "stop": 10, "compute_ms": 14.2, "hop_ms": 2.1},
    {"node": "b2", "name": "lamp", "host": "h2", "start": 10, "stop": 20, "compute_ms": 11.6, "hop_ms": 0.42},
    {
        "node": "c3",
        "name": "old-laptop",
        "host": "h3",
        "start": 20,
        "stop": 30,
        "compute_ms": 9.3,
        "hop_ms": 8.4,
    },
]
for _span, _busy, _path in zip(SPANS, (0.62, 0.44, 0.37), ("lan", "lan", "wan"), strict=True):
    _span.update(busy=_busy, path=_path)


def state(**changed: Any) -> dict[str, Any]:
    """The picture of a pipeline of three workers, with what is ``changed``."""
    picture: dict[str, Any] = {
        "model": "smollm2-135m-instruct",
        "node": "f" * 32,
        "name": "desk",
        "epoch": 3,
        "pipeline": "0" * 32,
        "status": "ready",
        "sentence": "",
        "spans": SPANS,
        "primary": {"compute_ms": 4.8, "hop_ms": 2.0},
        "tokens_per_s": 18.9,
        "token_ms": 52.8,
        "floor_ms": 47.5,
        "floor_percent": 90.0,
        "predicted_ms": 51.0,
        "active": 1,
        "waiting": 0,
        "capacity_tokens": 16384,
        "used_tokens": 812,
        "prefix_hits": 2,
        "failovers": 0,
        "left_out": [["attic-pi", "would make a token take 96 ms instead of 53 ms."]],
        "wire": "fp16",
        "coordinator": "up",
        "audit": {"key": "desk+0123abcd+AbCd=", "size": 1204, "sentence": "Every answer is audited."},
    }
    return picture | changed


EXPLANATION: dict[str, Any] = {
    "token": 7,
    "piece": " dark",
    "logprob": -0.4,
    "alternatives": [],
    "contributions": [
        {
            "node": span["node"],
            "name": span["name"],
            "start": span["start"],
            "stop": span["stop"],
            "logit": logit,
            "layers": [
                {"layer": layer, "logit": logit / 10 + math.sin(layer)}
                for layer in range(span["start"], span["stop"])
            ],
        }
        for span, logit in zip(SPANS, (1.31, -0.72, 6.05), strict=True)
    ],
    "embedding": 0.4,
    "total": 7.04,
    "responsibilities": [],
}


def shares(names: tuple[str, ...], index: int) -> dict[str, float]:
    """Responsibilities of which the one whose turn it is has most."""
    return {
        name: 0.7 if at == index % len(names) else 0.3 / (len(names) - 1) for at, name in enumerate(names)
    }


def pieces(text: str) -> list[str]:
    """Cut a text into made-up tokens: words with the blank before them, and marks."""
    return re.findall(r" ?[A-Za-z]+|\*\*|`+|\s|.", text)


@dataclass
class Script:
    """What the next requests get; tests change it as they go."""

    reply: str = REPLY
    hold_after: int | None = None  # tokens after which the stream waits for ``go``
    break_after: int | None = None  # tokens after which the stream tells an error
    refusal: tuple[int, str, dict[str, str]] | None = None
    explanation: dict[str, Any] | None = field(default_factory=lambda: EXPLANATION)
    state: dict[str, Any] = field(default_factory=state)
    news: Literal["flows", "ends", "stalls"] = "flows"
    key: str | None = None
    finish_reason: str = "stop"
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "smollm2-135m-instruct"}])
    specialists: tuple[str, ...] = ()  # a mixture of these speaks, each leading in turn
    receipt: dict[str, Any] | None = None
    go: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def tell(self, **changed: Any) -> None:
        """Send another picture of the pipeline to whoever listens."""
        with self.changed:
            self.state = state(**changed)
            self.changed.notify_all()


def chunks(script: Script) -> Iterator[dict[str, Any]]:
    """The chunks of one streamed reply in the shape of the API."""
    made = pieces(script.reply)
    for index, piece in enumerate(made):
        if index == script.break_after:
            yield {"error": {"message": "Layers 10–19 lost their home.", "type": "server_error"}}
            return
        if index == script.hold_after:
            script.go.wait(30)
        logprob = -0.05 - 4.4 * ((index * 7919) % 13 / 13) ** 3
        others = [" light", " old", " sky", "\n"]
        top = [{"token": piece, "logprob": logprob}]
        top += [{"token": other, "logprob": logprob - 0.3 - rank} for rank, other in enumerate(others)]
        content = [{"token": piece, "logprob": logprob, "top_logprobs": top}]
        choice = {"index": 0, "delta": {"content": piece}, "logprobs": {"content": content}}
        ours: dict[str, Any] = {"token": 100 + index, "ms": 5}
        if script.specialists:
            ours["responsibilities"] = shares(script.specialists, index)
        yield {"choices": [choice | {"finish_reason": None}], "sharedllm": ours}
    end: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": script.finish_reason}]}
    yield end | {"sharedllm": {"failovers": 0} | ({"receipt": "cmpl-1-0"} if script.receipt else {})}
    usage = {"prompt_tokens": 40, "completion_tokens": len(made)}
    yield {"choices": [], "usage": usage | {"prompt_tokens_details": {"cached_tokens": 12}}}


class Handler(BaseHTTPRequestHandler):
    """Answers as the script says."""

    script: Script

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: a test's output is the test's."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            if self._admitted():
                self._json(200, {"object": "list", "data": self.script.models})
        elif self.path == "/v1/sharedllm/receipts/cmpl-1-0":
            if self._admitted():
                found = self.script.receipt or {"error": {"message": "There is no receipt."}}
                self._json(200 if self.script.receipt else 404, found)
        elif self.path == "/v1/sharedllm/events":
            if self._admitted():
                self._stream(self._news())
        else:
            self._file("index.html" if self.path == "/" else self.path.removeprefix("/web/"))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.script.asked.append((self.path, body))
        if not self._admitted():
            return
        if self.path == "/v1/sharedllm/explain":
            if self.script.explanation is None:
                self._json(503, {"error": {"message": "lamp does not answer."}})
            else:
                self._json(200, self.script.explanation)
        elif self.script.refusal is not None:
            status, sentence, headers = self.script.refusal
            self._json(status, {"error": {"message": sentence}}, headers)
        else:
            self._stream(chunks(self.script), end=b"data: [DONE]\n\n")

    def _admitted(self) -> bool:
        if self.script.key is None or self.headers.get("Authorization") == f"Bearer {self.script.key}":
            return True
        self._json(401, {"error": {"message": "The API key is missing or wrong."}})
        return False

    def _news(self) -> Iterator[dict[str, Any]]:
        while self.script.news != "ends":
            with self.script.changed:
                if self.script.news == "flows":
                    yield self.script.state
                self.script.changed.wait(0.5)

    def _stream(self, events: Iterator[dict[str, Any]], end: bytes = b"") -> None:
        self._head(200, "text/event-stream")
        try:
            for event in events:
                self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                self.wfile.flush()
            self.wfile.write(end)
        except OSError:
            self.script.hung_up.set()

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._head(status, "application/json", headers or {})
        self.wfile.write(json.dumps(value).encode())

    def _file(self, name: str) -> None:
        path = FOLDER / name
        if path.parent != FOLDER or not path.is_file():
            self._json(404, {"error": {"message": "There is nothing here."}})
            return
        self._head(200, f"{mimetypes.guess_type(name)[0]}; charset=utf-8")
        self.wfile.write(path.read_bytes())

    def _head(self, status: int, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        fixed = {"Content-Type": kind, "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
        for name, value in (fixed | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()


class FakePrimary:
    """A server on a free port of the loopback, with a script; close it after use."""

    def __init__(self) -> None:
        self.script = Script()
        handler = type("ScriptedHandler", (Handler,), {"script": self.script})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let every held stream go, and end."""
        self.script.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
