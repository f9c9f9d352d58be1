"""The page: its files, the live state it draws, and what moved a token.

Files are found once, by name: no path from outside ever reaches the file system.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from sharedllm.nodes.api.answer import checked_prompt
from sharedllm.nodes.api.body import read_json
from sharedllm.nodes.api.chat import read_messages
from sharedllm.nodes.api.completions import checked_ids
from sharedllm.nodes.api.errors import ClientGone, Refused, wrong
from sharedllm.nodes.api.schemas import asked_model
from sharedllm.nodes.api.service import Service
from sharedllm.nodes.api.streaming import Events, unless_gone
from sharedllm.nodes.errors import Busy

__all__ = ["WEB", "add_page"]

WEB = Path(__file__).parents[1] / "web"
STATE_EVERY_S = 0.5
MAX_WATCHERS = 64
MAX_EXPLAINING = 8
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}


def add_page(app: FastAPI, service: Service, web: Path, closing: asyncio.Event) -> None:
    """Add the page's files at / and /web/, and what they ask for under /v1/sharedllm/.

    ``closing`` ends the streams of state, which would otherwise hold up a server that wants to stop.
    """
    files = _Files(web)
    live = _Live(service, closing)
    explaining = _Explaining(service)

    @app.get("/")
    async def index(request: Request) -> Response:
        return await files.response("index.html", request)

    @app.get("/web/{name:path}")
    async def file(name: str, request: Request) -> Response:
        return await files.response(name, request)

    @app.get("/v1/sharedllm/state")
    async def state() -> Response:
        return live.now()

    @app.get("/v1/sharedllm/events")
    async def events() -> Response:
        return live.events()

    @app.post("/v1/sharedllm/explain")
    async def explain(request: Request) -> Response:
        return await explaining.response(await read_json(request))


class _Files:
    """The files of one folder, by the names they have in it; each answer says to ask again before reuse."""

    def __init__(self, folder: Path) -> None:
        self._paths = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.suffix in _TYPES and path.is_file()
        }

    async def response(self, name: str, request: Request) -> Response:
        path = self._paths.get(name)
        if path is None:
            raise Refused(f"There is no file {name[:100]!r} here.", status=404, code="not_found")
        data = await asyncio.to_thread(path.read_bytes)
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers | {"Content-Type": _TYPES[path.suffix]})


class _Live:
    """The service's state, once or as a stream for as long as somebody looks."""

    def __init__(self, service: Service, closing: asyncio.Event) -> None:
        self.service, self.closing = service, closing
        self.watchers = 0

    def now(self) -> Response:
        return JSONResponse(self.service.state())

    def events(self) -> Response:
        return _StateEvents(self)

    async def write(self, events: Events) -> None:
        """Write the state again and again. Raises ``Busy``, before anything is written."""
        if self.watchers >= MAX_WATCHERS:
            raise Busy(f"{MAX_WATCHERS} pages are watching already; close one of them.", retry_after_s=5)
        self.watchers += 1
        try:
            await events.open()
            while not self.closing.is_set():
                await events.data(self.service.state())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STATE_EVERY_S):
                        await self.closing.wait()
            await events.close()
        finally:
            self.watchers -= 1


class _StateEvents(Response):
    def __init__(self, live: _Live) -> None:
        self.live = live
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(ClientGone):
            await unless_gone(receive, self.live.write(Events(send)))


class _Explaining:
    """Explanations, one at a time: each computes for up to seconds what streams would like to compute too."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._turn = asyncio.Semaphore(1)
        self._asked = 0

    async def response(self, body: dict[str, Any]) -> Response:
        if self._asked >= MAX_EXPLAINING:
            raise Busy(f"{MAX_EXPLAINING} explanations are waiting already; try again.", retry_after_s=5)
        self._asked += 1
        try:
            async with self._turn:
                return JSONResponse(await asyncio.to_thread(self._explain, body))
        finally:
            self._asked -= 1

    def _explain(self, body: dict[str, Any]) -> dict[str, Any]:
        known = {"prompt", "messages", "tokens", "index", "model"}
        for name in body:
            if name not in known:
                raise Refused(
                    f"{name[:100]} is not a parameter of this request; known are {', '.join(sorted(known))}.",
                    param=name[:100],
                    code="unknown_parameter",
                )
        tokenizer = self.service.tokenizer
        tokens = checked_ids(body.get("tokens"), tokenizer.vocab_size, "tokens")
        index = body.get("index")
        if type(index) is not int or not 0 <= index < len(tokens):
            raise wrong("index", index, f"the place of one of the {len(tokens):,} tokens, from 0")
        if isinstance(body.get("messages"), list):
            prompt = tokenizer.chat_tokens(read_messages(body["messages"]))
        else:
            prompt = checked_ids(body.get("prompt"), tokenizer.vocab_size, "prompt")
        said = tokens[:index]
        checked_prompt([*prompt, *said], self.service.context, "prompt")
        model = body.get("model")
        if model is not None and not isinstance(model, str):
            raise wrong("model", model, "the name of a model")
        served = asked_model(self.service, model)
        return self.service.explain(prompt, tokens[index], said, served.name)
