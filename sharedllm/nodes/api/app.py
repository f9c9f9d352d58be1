"""The primary's HTTP: OpenAI's routes, the page, probes and metrics, behind one guard."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from sharedllm.nodes.api.answer import Answer, checked_prompt
from sharedllm.nodes.api.body import read_json
from sharedllm.nodes.api.chat import ChatForm, read_messages
from sharedllm.nodes.api.completions import CompletionForm, encode_prompts, read_prompts
from sharedllm.nodes.api.errors import Refused, handle
from sharedllm.nodes.api.guard import Guard
from sharedllm.nodes.api.page import WEB, add_page
from sharedllm.nodes.api.schemas import ChatAsked, CompletionAsked, asked_model, client_key
from sharedllm.nodes.api.service import Served, Service
from sharedllm.nodes.operations import BadSetting, metrics

__all__ = ["create_app"]


def create_app(
    service: Service,
    *,
    api_key: str | None = None,
    allowed_hosts: Collection[str] = (),
    web: Path = WEB,
) -> FastAPI:
    """Build the app; without ``api_key`` it must be bound to loopback alone (``make_server`` sees to it).

    ``allowed_hosts`` are names besides localhost that it answers to; "*" (with a key only) is all.
    Raises ``BadSetting`` for a key that can be guessed.
    """
    if api_key is not None and len(api_key) < 16:
        raise BadSetting(
            f"The API key has {len(api_key)} characters; expected at least 16. Give a longer one."
        )
    # the interactive documentation would load its scripts from another site
    app = FastAPI(title="SharedLLM", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.closing = asyncio.Event()
    app.state.guarded = api_key is not None
    app.add_exception_handler(HTTPException, handle)
    _add_models(app, service)
    _add_completions(app, service)
    _add_probes(app, service)
    add_page(app, service, web, app.state.closing)
    app.add_middleware(Guard, api_key=api_key, allowed_hosts=allowed_hosts)
    return app


def _add_models(app: FastAPI, service: Service) -> None:
    def listed(served: Served) -> dict[str, Any]:
        return {
            "id": served.name,
            "object": "model",
            "created": service.created,
            "owned_by": "sharedllm",
            "sharedllm": {
                "context": service.context,
                "kind": served.kind,
                "members": list(served.members),
                "ids": list(served.ids),
            },
        }

    @app.get("/v1/models")
    async def models() -> Response:
        found = await asyncio.to_thread(service.models)
        return JSONResponse({"object": "list", "data": [listed(served) for served in found]})

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> Response:
        return JSONResponse(listed(await asyncio.to_thread(asked_model, service, name)))


def _add_completions(app: FastAPI, service: Service) -> None:
    tokenizer = service.tokenizer

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        asked = ChatAsked.read(await read_json(request))
        served = await asyncio.to_thread(asked_model, service, asked.model)
        messages, key = read_messages(asked.messages), client_key(request)

        def prompts() -> list[tuple[int, ...]]:
            return [checked_prompt(tokenizer.chat_tokens(messages), service.context, "messages")]

        return Answer(service, served, asked, ChatForm(tokenizer, asked.top_logprobs_wanted()), prompts, key)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        asked = CompletionAsked.read(await read_json(request))
        served = await asyncio.to_thread(asked_model, service, asked.model)
        read, key = read_prompts(asked, tokenizer.vocab_size), client_key(request)

        def prompts() -> list[tuple[int, ...]]:
            encoded = encode_prompts(tokenizer, read)
            return [checked_prompt(prompt, service.context, "prompt") for prompt in encoded]

        form = CompletionForm(tokenizer, asked.top_logprobs_wanted())
        return Answer(service, served, asked, form, prompts, key)

    @app.get("/v1/sharedllm/receipts/{identifier}")
    async def receipt(identifier: str) -> Response:
        found = await asyncio.to_thread(service.receipt, identifier)
        if found is None:
            raise Refused(
                f"There is no receipt {identifier[:100]!r}: it is not known here, its answer goes on, or it "
                "was not audited. Ask with the id that the answer's end gave.",
                status=404,
                code="receipt_not_found",
            )
        headers = {"Content-Disposition": 'attachment; filename="receipt.json"'}
        return Response(found, media_type="application/json", headers=headers)

    @app.get("/v1/sharedllm/log")
    async def log() -> Response:
        found = service.log()
        if found is None:
            raise Refused("This server keeps no audit log.", status=404, code="log_not_found")
        return JSONResponse(found)


def _add_probes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        ready, sentence = service.ready()
        return JSONResponse({"ready": ready, "sentence": sentence}, 200 if ready else 503)

    @app.get("/metrics")
    async def exposition() -> Response:
        return Response(metrics.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})
